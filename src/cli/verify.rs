//! `verify`: explains, check by check, whether an SNS message is genuine, by the very code that guards `POST /ipn`.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::mistakes;
use crate::clock::Clock;
use crate::config::{self, Given};
use crate::sns::{Check, Envelope, Explanation, Headers, Outcome, RefusedClass, SnsSettings, TopicArn, Verifier};

/// The largest body that SNS sends over HTTPS is well below this.
const MAX_MESSAGE_BYTES: u64 = 1024 * 1024;
const MAX_CERTIFICATE_BYTES: u64 = 64 * 1024;

const EXIT_REFUSED: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// What had to be assumed because the command line did not settle it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Assumed {
    /// That the topic which the message names is the right one.
    Topic,
    /// That the certificate which was given is Amazon's.
    Certificate,
    /// That what a sandbox's settings trust instead of Amazon is to be trusted.
    Sandbox,
}

impl Assumed {
    fn warning(self) -> &'static str {
        match self {
            Self::Topic => TOPIC_ASSUMED,
            Self::Certificate => CERTIFICATE_ASSUMED,
            Self::Sandbox => SANDBOX_ASSUMED,
        }
    }

    fn condition(self) -> &'static str {
        match self {
            Self::Topic => "the topic is one that you trust",
            Self::Certificate => "the certificate is Amazon's",
            Self::Sandbox => "what the settings trust is Amazon SNS",
        }
    }
}

const CERTIFICATE_ASSUMED: &str = "WARNING: the issuer of the given certificate is not known here, so nothing shows that it is \
    Amazon's. The service itself takes certificates only from the host of SNS.";

const SANDBOX_ASSUMED: &str = "WARNING: the settings put a sandbox's trust in the place of Amazon's (SNS_CERTIFICATE_BASE_URL, \
    SNS_CERTIFICATE_NAME, SNS_TRUST_ANCHORS_FILE), so \"genuine\" says nothing about Amazon.";

const TOPIC_ASSUMED: &str = "WARNING: no --topic was given, so the topic that the message itself names is assumed. \
    Anyone with an AWS account can publish signed messages to a topic of their own: without --topic, \"genuine\" says \
    nothing about who sent it.";

/// Explains, check by check, whether an SNS message is genuine.
///
/// Exit status: 0 genuine, 1 refused, 2 wrong usage.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The request body as SNS sent it (JSON); '-' reads standard input
    file: PathBuf,
    /// Use this signing certificate instead of fetching the one that the message names
    #[arg(long, value_name = "PEM")]
    certificate: Option<PathBuf>,
    /// Judge as of this time (RFC 3339), including the message's age; now, if absent
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// A topic whose messages are accepted; may be repeated
    #[arg(long = "topic", value_name = "ARN")]
    topics: Vec<TopicArn>,
    /// Judge by the settings of `serve` in the environment, as the service would: topics (unless --topic is given), ages, versions, chain,
    /// and the trust of a sandbox
    #[arg(long)]
    settings: bool,
    /// Print the checks as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command and prints what it found.
pub async fn run(args: VerifyArgs) -> ExitCode {
    let given = if args.settings {
        match config::read_verification(Given::from_environment()) {
            Ok(read) => Some(read),
            Err(wrong) => return mistakes::report(&wrong),
        }
    } else {
        None
    };
    let printed = match explain(&args, given).await {
        Ok((explanation, assumed)) => {
            let text = if args.json {
                as_json(&explanation, &assumed)
            } else {
                as_text(&explanation, &assumed, args.settings)
            };
            let code = if explanation.refused.is_none() { ExitCode::SUCCESS } else { EXIT_REFUSED.into() };
            std::io::stdout().lock().write_all(text.as_bytes()).map(|()| code)
        }
        Err(error) => writeln!(std::io::stderr().lock(), "error: {error:#}").map(|()| EXIT_USAGE.into()),
    };
    printed.unwrap_or_else(|_| EXIT_USAGE.into())
}

/// The explanation by the given settings, or those of who sets nothing; and what it rests on that was not shown.
async fn explain(
    args: &VerifyArgs,
    given: Option<(SnsSettings, Clock)>,
) -> anyhow::Result<(Explanation, Vec<Assumed>)> {
    let body = if args.file.as_os_str() == "-" {
        bounded(std::io::stdin().lock(), MAX_MESSAGE_BYTES).context("cannot read standard input")?
    } else {
        read_file(&args.file, MAX_MESSAGE_BYTES)?
    };
    let certificate = args.certificate.as_ref().map(|path| read_file(path, MAX_CERTIFICATE_BYTES)).transpose()?;
    let named =
        || Envelope::parse(&body).ok().and_then(|envelope| envelope.topic_arn.parse().ok()).into_iter().collect();
    let mut assumed = Vec::new();
    let (mut settings, mut clock) = given.unwrap_or_else(|| {
        if args.topics.is_empty() {
            assumed.push(Assumed::Topic);
        }
        (SnsSettings::for_topics(named()), Clock::system())
    });
    if !args.topics.is_empty() {
        settings.topics.clone_from(&args.topics);
    }
    if let Some(at) = args.at {
        clock = Clock::fixed(at);
    }
    if settings.trusts_a_sandbox() {
        assumed.push(Assumed::Sandbox);
    }
    let verifier = match certificate {
        Some(pem) => Verifier::with_certificate(settings, clock, &pem)?,
        None => Verifier::new(settings, clock)?,
    };
    let explanation = verifier.explain(&Headers::default(), &body).await;
    if args.certificate.is_some() && explanation.refused.is_none() && !explanation.chain_proven {
        assumed.push(Assumed::Certificate);
    }
    Ok((explanation, assumed))
}

fn read_file(path: &PathBuf, max_bytes: u64) -> anyhow::Result<Vec<u8>> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    bounded(file, max_bytes).with_context(|| format!("cannot read {}", path.display()))
}

fn bounded(source: impl Read, max_bytes: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = source.take(max_bytes + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(read as u64 <= max_bytes, "more than {max_bytes} bytes");
    Ok(bytes)
}

fn as_text(explanation: &Explanation, assumed: &[Assumed], by_settings: bool) -> String {
    let mut lines = Vec::new();
    for step in &explanation.steps {
        let name = step.check.as_str().replace('_', " ");
        let mark = match step.outcome {
            Outcome::Passed => "ok",
            Outcome::Failed(_) => "FAILED",
            Outcome::NotReached => "-",
        };
        let detail = match step.outcome {
            Outcome::NotReached => "not reached".to_owned(),
            _ => format!("expected {}; found {}", step.expected, step.found),
        };
        lines.push(format!("{mark:<7} {name:<21} {detail}"));
    }
    lines.push(String::new());
    for assumption in assumed {
        lines.push(assumption.warning().to_owned());
        lines.push(String::new());
    }
    lines.push(verdict(explanation, assumed, by_settings));
    lines.push(String::new());
    lines.join("\n")
}

fn verdict(explanation: &Explanation, assumed: &[Assumed], by_settings: bool) -> String {
    let Some(refused) = &explanation.refused else {
        let conditions: Vec<&str> = assumed.iter().map(|assumption| assumption.condition()).collect();
        let conditions =
            if conditions.is_empty() { String::new() } else { format!(", if {}", conditions.join(" and ")) };
        return format!("GENUINE: signed by Amazon SNS{conditions}.");
    };
    let answer = match refused.class() {
        RefusedClass::Malformed => "400, final: SNS does not send it again",
        RefusedClass::Forbidden => "403, final: SNS does not send it again",
        RefusedClass::Unavailable => "503, cannot be judged now: SNS sends it again",
    };
    let check = refused.check();
    let hint = if check == Check::Timestamp.as_str() { " To judge it as of another time use --at." } else { "" };
    // Ages, REQUIRE_SIGNATURE_V2 and REQUIRE_CHAIN may be set otherwise than by default.
    let settings = if by_settings { "these" } else { "its default" };
    format!(
        "REFUSED by the check \"{}\". The service, with {settings} settings, would answer {answer}.{hint}",
        check.replace('_', " ")
    )
}

fn as_json(explanation: &Explanation, assumed: &[Assumed]) -> String {
    let checks: Vec<_> = explanation
        .steps
        .iter()
        .map(|step| {
            let outcome = match step.outcome {
                Outcome::Passed => "passed",
                Outcome::Failed(_) => "failed",
                Outcome::NotReached => "not reached",
            };
            json!({"check": step.check.as_str(), "outcome": outcome, "expected": step.expected, "found": step.found})
        })
        .collect();
    let refused = explanation.refused.as_ref();
    let value = json!({
        "genuine": refused.is_none(), "refusedBy": refused.map(crate::sns::Refused::check),
        "topicAssumed": assumed.contains(&Assumed::Topic), "certificateAssumed": assumed.contains(&Assumed::Certificate),
        "sandboxTrusted": assumed.contains(&Assumed::Sandbox), "chainProven": explanation.chain_proven, "checks": checks,
    });
    format!("{value:#}\n")
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use clap::Parser;
    use serde_json::Value;

    use super::*;
    use crate::sns::test_authority::{Key, NOW, TOPIC, good_certificate, notification, signed};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        verify: VerifyArgs,
    }

    struct Files {
        directory: tempfile::TempDir,
    }

    impl Files {
        fn with(message: &Value) -> Self {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("message"), message.to_string()).unwrap();
            std::fs::write(directory.path().join("pem"), good_certificate()).unwrap();
            Self { directory }
        }

        fn args(&self, more: &[&str]) -> VerifyArgs {
            let path = |name| self.directory.path().join(name).display().to_string();
            let line = ["verify", &path("message"), "--certificate", &path("pem"), "--at", NOW];
            Line::parse_from(line.into_iter().chain(more.iter().copied())).verify
        }
    }

    fn genuine() -> Value {
        signed(notification("https://sns.us-east-1.amazonaws.com"), Key::main())
    }

    #[tokio::test]
    async fn a_genuine_message_is_explained_on_one_screen() {
        let (explanation, assumed) = explain(&Files::with(&genuine()).args(&["--topic", TOPIC]), None).await.unwrap();
        let text = as_text(&explanation, &assumed, false);
        // The certificate of the test is no one's that is known.
        assert!(text.ends_with("GENUINE: signed by Amazon SNS, if the certificate is Amazon's.\n"), "{text}");
        assert!(
            text.lines().count() < 24 && text.contains(CERTIFICATE_ASSUMED) && !text.contains(TOPIC_ASSUMED),
            "{text}"
        );
        let json: Value = serde_json::from_str(&as_json(&explanation, &assumed)).unwrap();
        assert_eq!((&json["genuine"], &json["refusedBy"]), (&Value::Bool(true), &Value::Null));
    }

    #[tokio::test]
    async fn without_a_topic_the_reader_is_warned() {
        let (explanation, assumed) = explain(&Files::with(&genuine()).args(&[]), None).await.unwrap();
        let text = as_text(&explanation, &assumed, false);
        assert!(explanation.refused.is_none() && text.contains("WARNING"), "{text}");
        assert!(text.ends_with("if the topic is one that you trust and the certificate is Amazon's.\n"), "{text}");
    }

    #[tokio::test]
    async fn a_refusal_names_the_check_and_the_answer() {
        let mut forged = genuine();
        forged["Message"] = Value::from("forged");
        let (explanation, assumed) = explain(&Files::with(&forged).args(&["--topic", TOPIC]), None).await.unwrap();
        let text = as_text(&explanation, &assumed, false);
        assert!(text.contains("FAILED  signature ") && text.contains("would answer 403"), "{text}");

        let other = TOPIC.replace("us-east-1", "eu-west-1");
        let (explanation, assumed) = explain(&Files::with(&genuine()).args(&["--topic", &other]), None).await.unwrap();
        let text = as_text(&explanation, &assumed, false);
        assert!(text.contains("REFUSED by the check \"topic\"") && text.contains("not reached"), "{text}");
    }

    #[tokio::test]
    async fn a_message_that_was_kept_too_long_is_refused_with_the_way_to_judge_it() {
        let mut old = genuine();
        old["Timestamp"] = Value::from("2020-01-01T00:00:00.000Z");
        let (explanation, assumed) = explain(&Files::with(&old).args(&["--topic", TOPIC]), None).await.unwrap();
        let text = as_text(&explanation, &assumed, false);
        assert!(text.contains("REFUSED by the check \"timestamp\"") && text.contains("use --at"), "{text}");
    }

    #[tokio::test]
    async fn files_that_cannot_be_used_are_wrong_usage() {
        let files = Files::with(&genuine());
        std::fs::write(files.directory.path().join("pem"), "no certificate").unwrap();
        assert!(explain(&files.args(&[]), None).await.is_err());
        std::fs::remove_file(files.directory.path().join("message")).unwrap();
        assert!(explain(&files.args(&[]), None).await.is_err());
    }
}
