//! `trigger`: sends any kind of signed SNS message to a service that runs here, so that its real `POST /ipn` can be tried by hand.
//!
//! It is an SNS of its own: it signs with a key that the service is told to trust (`trigger settings`), serves the certificate
//! while it sends, and confirms subscriptions.

mod report;
mod target;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Parser, ValueEnum};
use jiff::Timestamp;
use reqwest::Url;

use super::mistakes::{self, EXIT_USAGE};
use crate::clock::Clock;
use crate::config::Given;
use crate::ipn::TEST_OBJECT_ID;
use crate::model::ids::{ChargePermissionId, MerchantId, ObjectId, Region};
use crate::sandbox::{
    self, CertificateHost, Forgery, Ipn, Letter, NotificationType, ObjectType, SignatureVersion, SnsIdentity, Topic,
};
use crate::sns::TopicArn;
use report::Report;
pub(super) use target::Target;

const DEFAULT_CERTIFICATE_BASE_URL: &str = "http://127.0.0.1:9100";
/// Whose notifications are sent where nothing says whose.
const DEFAULT_MERCHANT: &str = "A2K7NDRCTOTPW9";
/// Of `SNS_MAX_MESSAGE_AGE`.
const DEFAULT_MAX_MESSAGE_AGE: Duration = Duration::from_hours(15 * 24);

const EXAMPLES: &str = "\
Try it, in one shell that has the settings of a sandbox account (set -a exports what follows):
  set -a; eval \"$(amazon-pay-ipn trigger settings)\"; set +a
  amazon-pay-ipn serve &
  amazon-pay-ipn trigger charge --permission S01-1234567-1234567
  amazon-pay-ipn trigger charge --copies 2               # the second is a duplicate
  amazon-pay-ipn trigger charge --forge other-key        # must be refused
  amazon-pay-ipn trigger charge --published-ago 20d      # too old: must be refused
  amazon-pay-ipn trigger subscription

What is not said is taken from the settings of `serve` in the environment: \
AMAZON_PAY_MERCHANT_ID, AMAZON_PAY_REGION, SNS_TOPIC_ARNS (the first), SNS_CERTIFICATE_BASE_URL (--listen), LISTEN_ADDR (--to), \
SNS_MAX_MESSAGE_AGE, CLOCK_OFFSET_FILE.

To check a printed message, --topic being the ARN in it:
  amazon-pay-ipn trigger charge --print | \\
    amazon-pay-ipn verify - --certificate .amazon-pay-ipn-trigger/certificate.pem --topic ARN";

/// Send a signed notification to a service that runs here
///
/// Exit status: 0 the service answered as it should (200 to what is genuine, 403 to what is forged or too old), 1 it did not,
/// 2 wrong usage.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TriggerArgs {
    /// What is sent
    #[arg(value_enum)]
    kind: Kind,
    /// The service
    #[arg(
        long,
        value_name = "URL",
        help = "The service: http:// and a loopback or private address [default: http://127.0.0.1:8080/ipn]"
    )]
    to: Option<String>,
    /// The charge permission that the notification names
    #[arg(long, value_name = "ID", default_value = "S01-0000000-0000000")]
    permission: ChargePermissionId,
    /// The object that the notification names [default: one of the permission]
    #[arg(long, value_name = "ID")]
    object: Option<ObjectId>,
    /// What happened to the object
    #[arg(long, value_enum, value_name = "TYPE", default_value = "STATE_CHANGE")]
    notification_type: NotificationType,
    /// The merchant that the notification names [default: `AMAZON_PAY_MERCHANT_ID`]
    #[arg(long, value_name = "ID")]
    merchant_id: Option<MerchantId>,
    /// The topic that sends [default: the first of `SNS_TOPIC_ARNS`]
    #[arg(long, value_name = "ARN")]
    topic: Option<TopicArn>,
    /// How SNS signs: 1 is SHA-1, 2 is SHA-256
    #[arg(long, value_enum, value_name = "VERSION", default_value = "1")]
    signature_version: SignatureVersion,
    /// Subject of the notification
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// Send the same message so many times, 1 to 100
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=100))]
    copies: u16,
    /// Published so long ago, such as 30m or 2d [default: now]
    #[arg(long, value_name = "SPAN")]
    published_ago: Option<humantime::Duration>,
    /// Send something that must be refused
    #[arg(long, value_enum, value_name = "WAY")]
    forge: Option<Forgery>,
    /// Folder of the signing key and its certificate; made at first use
    #[arg(long, value_name = "FOLDER", default_value = ".amazon-pay-ipn-trigger")]
    keys: PathBuf,
    /// Where certificates are served and subscriptions confirmed while this command runs [default: that of the service's settings, else 127.0.0.1:9100]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// Print the message instead of sending it, its certificate at the address that SNS would give
    #[arg(long, conflicts_with_all = ["json", "to", "copies"])]
    print: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A charge permission changed
    ChargePermission,
    /// A charge changed
    Charge,
    /// A refund changed
    Refund,
    /// A dispute was opened or changed
    Chargeback,
    /// A test of the connection, about an object that does not exist
    Test,
    /// SNS asks to confirm a subscription
    Subscription,
    /// SNS says that the subscription has ended
    Unsubscription,
    /// Nothing: print the settings with which `serve` believes this command
    Settings,
}

/// What is to be sent, as whom, and what should come of it.
struct Order {
    letter: Letter,
    is_test: bool,
    topic: TopicArn,
    version: SignatureVersion,
    forgery: Option<Forgery>,
    is_too_old: bool,
    /// `http://host:port` of the certificates.
    certificate_base_url: String,
    /// File of the certificate that the service must trust.
    anchors: PathBuf,
}

/// Runs the command.
pub async fn run(args: TriggerArgs) -> ExitCode {
    // The settings as `serve` would find them: `config` says which variables there are.
    let settings =
        Environment::try_parse_from(["serve"]).map(|environment| environment.given).context("the environment");
    let prepared = settings.and_then(|given| Prepared::new(&args, &given));
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return wrong_usage(&error),
    };
    if args.kind == Kind::Settings {
        return print(&prepared.settings(), true);
    }
    if args.print {
        return match prepared.printed() {
            Ok(message) => print(&message, true),
            Err(error) => mistakes::fail(&error),
        };
    }
    match Target::find("--to", &prepared.to).await {
        Ok(target) => match prepared.send(&target, &args).await {
            Ok((text, as_expected)) => print(&text, as_expected),
            Err(error) => mistakes::fail(&error),
        },
        Err(error) => wrong_usage(&error),
    }
}

fn wrong_usage(error: &anyhow::Error) -> ExitCode {
    mistakes::fail(error);
    EXIT_USAGE.into()
}

fn print(text: &str, good: bool) -> ExitCode {
    let code = if good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    std::io::stdout().lock().write_all(text.as_bytes()).map_or(EXIT_USAGE.into(), |()| code)
}

/// The environment alone; flags of the same names are for `serve`.
#[derive(Debug, Parser)]
struct Environment {
    #[command(flatten)]
    given: Given,
}

/// An empty variable is one that is not set.
fn set(value: Option<&String>) -> Option<&str> {
    value.map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn parsed<T: std::str::FromStr>(name: &str, text: &str) -> anyhow::Result<T>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(|error: T::Err| anyhow::anyhow!("{name}: {error}"))
}

/// Everything that is known before anything is sent.
struct Prepared {
    order: Order,
    to: String,
    /// `host:port`.
    listen: String,
    identity: Arc<SnsIdentity>,
    /// Settings that `serve` lacks besides those about SNS.
    missing: Vec<(&'static str, String)>,
}

impl Prepared {
    fn new(args: &TriggerArgs, given: &Given) -> anyhow::Result<Self> {
        let known_merchant = set(given.amazon_pay_merchant_id.as_ref());
        let merchant = match &args.merchant_id {
            Some(merchant) => merchant.clone(),
            None => parsed("AMAZON_PAY_MERCHANT_ID", known_merchant.unwrap_or(DEFAULT_MERCHANT))?,
        };
        let known_topics = set(given.sns_topic_arns.as_ref()).unwrap_or_default();
        let known_topics: Vec<&str> = known_topics.split(',').map(str::trim).filter(|arn| !arn.is_empty()).collect();
        let topic = match (&args.topic, known_topics.first()) {
            (Some(topic), _) => topic.clone(),
            (None, Some(first)) => parsed("SNS_TOPIC_ARNS", first)?,
            (None, None) => {
                let region = set(given.amazon_pay_region.as_ref()).unwrap_or(Region::Na.as_str());
                let region = parsed("AMAZON_PAY_REGION", region)?;
                parsed("the topic", &sandbox::topic_arn(region, merchant.as_str()))?
            }
        };
        let mut missing = Vec::new();
        if known_merchant != Some(merchant.as_str()) {
            missing.push(("AMAZON_PAY_MERCHANT_ID", merchant.to_string()));
        }
        if !known_topics.contains(&topic.as_str()) {
            missing.push(("SNS_TOPIC_ARNS", topic.to_string()));
        }
        let (certificate_base_url, listen) = certificate_address(args, given)?;
        let to = match &args.to {
            Some(to) => to.clone(),
            None => default_target(given)?,
        };
        args.check_combination()?;
        let clock = set(given.clock_offset_file.as_ref())
            .map_or_else(Clock::system, |path| Clock::from_offset_file(path.into()));
        let ago = args.published_ago.map_or(Duration::ZERO, Into::into);
        let at = clock.now().checked_sub(ago).context("--published-ago is too long")?;
        let max_age = match set(given.sns_max_message_age.as_ref()) {
            Some(text) => humantime::parse_duration(text).context("SNS_MAX_MESSAGE_AGE")?,
            None => DEFAULT_MAX_MESSAGE_AGE,
        };
        let identity = Arc::new(SnsIdentity::open(&args.keys).context("--keys")?);
        let anchors = SnsIdentity::anchor_file(&args.keys);
        // Absolute, because `serve` may run in another folder.
        let anchors = anchors.canonicalize().with_context(|| format!("--keys: {}", anchors.display()))?;
        let order = Order {
            letter: args.letter(&merchant, at),
            is_test: args.kind == Kind::Test,
            topic,
            version: args.signature_version,
            forgery: args.forge,
            is_too_old: ago > max_age,
            certificate_base_url,
            anchors,
        };
        Ok(Self { order, to, listen, identity, missing })
    }

    /// One `NAME=value` a line, for a shell and for files that are read as one.
    fn settings(&self) -> String {
        let Order { certificate_base_url: base, anchors, .. } = &self.order;
        let of_sns = [
            ("SNS_CERTIFICATE_BASE_URL", base.clone()),
            ("SNS_CERTIFICATE_NAME", SnsIdentity::NAME.to_owned()),
            ("SNS_TRUST_ANCHORS_FILE", anchors.display().to_string()),
            ("SNS_API_BASE_URL", base.clone()),
        ];
        let all = self.missing.iter().chain(&of_sns);
        all.flat_map(|(name, value)| [(*name).to_owned(), "=".to_owned(), for_a_shell(value), "\n".to_owned()])
            .collect()
    }

    /// The message with its certificate where SNS has it: what `verify` reads knows no sandbox.
    fn printed(&self) -> anyhow::Result<String> {
        let base = format!("https://{}", self.order.topic.certificate_host());
        Ok(format!("{}\n", self.order.message(&self.identity, &base)?.body))
    }

    async fn send(&self, target: &Target, args: &TriggerArgs) -> anyhow::Result<(String, bool)> {
        let message = self.order.message(&self.identity, &self.order.certificate_base_url)?;
        let host = match CertificateHost::start(&self.listen, Arc::clone(&self.identity)).await {
            Ok(host) => host,
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => anyhow::bail!(
                "{} is taken, by another trigger or another program; where that is a sandbox, let it send: its control has \
                 `notifications`. Else --listen takes another address, and the service has to know it: \
                 `amazon-pay-ipn trigger settings --listen ADDRESS`",
                self.listen
            ),
            Err(error) => return Err(error).with_context(|| format!("cannot listen at {}", self.listen)),
        };
        let statuses = target.post(&message, args.copies).await?;
        let report =
            Report { order: &self.order, to: target.url.as_str(), message: &message, statuses: &statuses, host: &host };
        Ok((if args.json { report.as_json() } else { report.as_text() }, report.is_as_expected()))
    }
}

/// Where certificates are said to be, and where they are served: `http://host:port` and `host:port`.
fn certificate_address(args: &TriggerArgs, given: &Given) -> anyhow::Result<(String, String)> {
    let (name, text) = match (&args.listen, set(given.sns_certificate_base_url.as_ref())) {
        (Some(address), _) => ("--listen", format!("http://{address}")),
        (None, Some(base)) => ("SNS_CERTIFICATE_BASE_URL", base.to_owned()),
        (None, None) => ("--listen", DEFAULT_CERTIFICATE_BASE_URL.to_owned()),
    };
    let url = Url::parse(&text).ok().filter(|url| url.scheme() == "http" && url.path() == "/" && url.query().is_none());
    let place =
        url.as_ref().and_then(|url| Some((url.host_str()?, url.port_or_known_default().filter(|port| *port > 0)?)));
    let (host, port) = place.with_context(|| {
        format!(
            "{name}: expected a place to serve certificates at, such as {DEFAULT_CERTIFICATE_BASE_URL}, got {text:?}"
        )
    })?;
    ensure!(!matches!(host, "0.0.0.0" | "[::]"), "{name}: {host} is no address from which the service could fetch");
    Ok((text.trim_end_matches('/').to_owned(), format!("{host}:{port}")))
}

fn default_target(given: &Given) -> anyhow::Result<String> {
    let listens: std::net::SocketAddr =
        parsed("LISTEN_ADDR", set(given.listen_addr.as_ref()).unwrap_or("0.0.0.0:8080"))?;
    let port = listens.port();
    Ok(match listens.ip() {
        ip if ip.is_unspecified() => format!("http://127.0.0.1:{port}/ipn"),
        _ => format!("http://{listens}/ipn"),
    })
}

/// As it is where no shell would mind, else in single quotes.
pub(super) fn for_a_shell(value: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/.:-_,@+=".contains(&byte);
    if value.bytes().all(is_plain) { value.to_owned() } else { format!("'{}'", value.replace('\'', r"'\''")) }
}

impl TriggerArgs {
    fn check_combination(&self) -> anyhow::Result<()> {
        let of_sns = matches!(self.kind, Kind::Subscription | Kind::Unsubscription);
        ensure!(!of_sns || self.subject.is_none(), "--subject: only notifications have one");
        let foreign = self.forge == Some(Forgery::ForeignMerchant);
        ensure!(!(of_sns && foreign), "--forge foreign-merchant: this message names no merchant");
        ensure!(
            !(self.kind == Kind::Test && foreign),
            "--forge foreign-merchant: a test is acknowledged whatever merchant it names"
        );
        Ok(())
    }

    fn letter(&self, merchant: &MerchantId, at: Timestamp) -> Letter {
        let permission = self.permission.as_str();
        // The forms that Amazon's samples show; that of a refund is a guess, nothing depends on it.
        let (object_type, object) = match self.kind {
            Kind::Subscription => return Letter::Subscription(at),
            Kind::Unsubscription => return Letter::Unsubscription(at),
            Kind::ChargePermission | Kind::Settings => (ObjectType::ChargePermission, permission.to_owned()),
            Kind::Charge => (ObjectType::Charge, format!("{permission}-C000001")),
            Kind::Refund => (ObjectType::Refund, format!("{permission}-R000001")),
            Kind::Chargeback => (ObjectType::Chargeback, format!("{permission}-B000001")),
            Kind::Test => (ObjectType::Charge, TEST_OBJECT_ID.to_owned()),
        };
        let object = match &self.object {
            Some(object) if self.kind != Kind::Test => object.as_str(),
            _ => &object,
        };
        let ipn = Ipn::new(merchant.as_str(), (object_type, object), permission, self.notification_type, at);
        Letter::Notification(ipn, self.subject.clone())
    }
}

impl Order {
    fn message(&self, identity: &SnsIdentity, base: &str) -> anyhow::Result<sandbox::SignedMessage> {
        let topic = Topic { identity, arn: self.topic.as_str(), certificate_base_url: base };
        Ok(match self.forgery {
            None => topic.sign(&self.letter, self.version),
            Some(forgery) => topic.forge(&self.letter, self.version, forgery)?,
        })
    }

    /// The answer of a service that does as it should.
    fn expected(&self) -> u16 {
        match self.forgery {
            None | Some(Forgery::ForeignMerchant) if !self.is_too_old => 200,
            _ => 403,
        }
    }

    fn in_words(&self) -> String {
        let forged = self.forgery.as_ref().and_then(ValueEnum::to_possible_value);
        let forged = forged.map_or_else(String::new, |way| format!("forged ({}) ", way.get_name()));
        let what = match &self.letter {
            Letter::Notification(ipn, _) => ipn.to_string(),
            other => other.message_type().as_str().to_owned(),
        };
        format!("{forged}{what}")
    }
}
