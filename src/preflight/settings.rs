//! What the settings alone show, and what is stored about the account.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Check, Finding, Severity};
use crate::model::ids::{MerchantId, Region};

/// A topic of the allow-list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFacts {
    /// The ARN.
    pub arn: String,
    /// Its AWS region.
    pub region: String,
    /// Its AWS account.
    pub owner: String,
    /// Whether its name ends in the merchant id.
    pub named_after_merchant: bool,
}

/// What is known of Amazon Pay's own topics. None of it is documented by Amazon, so nothing of it is required.
#[derive(Debug, Clone, Copy)]
pub struct KnownTopics<'a> {
    /// AWS regions of published topics of the region; empty if none was published.
    pub regions: &'a [&'a str],
    /// The AWS account of all published topics.
    pub owner: &'a str,
}

/// The allow-list.
#[must_use]
pub fn topics(topics: &[TopicFacts], merchant: &MerchantId, region: Region, known: KnownTopics<'_>) -> Vec<Finding> {
    let count = topics.len();
    let odd = |is_odd: &dyn Fn(&TopicFacts) -> bool| {
        let odd: Vec<&str> = topics.iter().filter(|topic| is_odd(topic)).map(|topic| topic.arn.as_str()).collect();
        odd.join(", ")
    };
    let judged = |check, odd: String, good: String, bad: &str| match odd.as_str() {
        "" => Finding::new(check, Severity::Ok, good),
        odd => Finding::new(check, Severity::Warning, format!("{bad}: {odd}")),
    };
    let in_region = if known.regions.is_empty() {
        let found = format!("no topic of Amazon Pay for {} is published: nothing can be compared", region.as_str());
        Finding::new(Check::TopicsRegion, Severity::Unknown, found)
    } else {
        let expected = known.regions.join(" or ");
        let elsewhere = odd(&|topic| !known.regions.contains(&topic.region.as_str()));
        let bad = format!("not in {expected}, where the published topics for {} are", region.as_str());
        judged(Check::TopicsRegion, elsewhere, format!("{count} in {expected}"), &bad)
    };
    let repeated: BTreeSet<&str> = topics
        .iter()
        .enumerate()
        .filter(|(index, topic)| topics[..*index].contains(topic))
        .map(|(_, topic)| topic.arn.as_str())
        .collect();
    let repeated: Vec<&str> = repeated.into_iter().collect();
    vec![
        in_region,
        judged(
            Check::TopicsMerchant,
            odd(&|topic| !topic.named_after_merchant),
            format!("named after {merchant}"),
            &format!("not named after {merchant}"),
        ),
        judged(
            Check::TopicsAccount,
            odd(&|topic| topic.owner != known.owner),
            format!("of the AWS account {}", known.owner),
            &format!("not of the AWS account {}", known.owner),
        ),
        judged(Check::TopicsRepeated, repeated.join(", "), "each once".to_owned(), "named more than once"),
    ]
}

/// The key; the error in words if it cannot be used.
#[must_use]
pub fn key(usable: Result<(), String>) -> Finding {
    match usable {
        Ok(()) => Finding::new(Check::AmazonKey, Severity::Ok, "the private key can sign"),
        Err(why) => Finding::new(Check::AmazonKey, Severity::Error, why),
    }
}

/// The page that buyers are sent to; the warning if it is not documented.
#[must_use]
pub fn update_link(warning: Option<&str>) -> Finding {
    warnings(
        Check::UpdateLink,
        &warning.map(str::to_owned).into_iter().collect::<Vec<_>>(),
        "buyers are sent to a page that is documented, or that you set",
    )
}

/// The warnings about the recovery policies.
#[must_use]
pub fn policies(found: &[String]) -> Finding {
    warnings(Check::Policies, found, "nothing speaks against the recovery policies")
}

/// The host to which everything goes unencrypted, if there is one; within this machine there is none.
#[must_use]
pub fn encryption(unencrypted_host: Option<&str>, live: bool) -> Finding {
    let of = |severity, found: String| Finding::new(Check::RedisEncryption, severity, found);
    match unencrypted_host {
        None => of(Severity::Ok, "encrypted, or within this machine".to_owned()),
        Some(host) if live => of(Severity::Warning, format!("unencrypted to {host}")),
        Some(host) => of(Severity::Ok, format!("unencrypted to {host}, in a sandbox")),
    }
}

fn warnings(check: Check, found: &[String], good: &str) -> Finding {
    if found.is_empty() {
        Finding::new(check, Severity::Ok, good)
    } else {
        Finding::new(check, Severity::Warning, found.join("; "))
    }
}

/// What the marker says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountFacts {
    /// Since when the stop switch is on.
    pub stopped_since: Option<Timestamp>,
    /// Since when the account is at fault, and why.
    pub fault: Option<(Timestamp, String)>,
    /// Whether a recovery after a loss is going on.
    pub recovering: bool,
    /// How long ago the last notification came, in seconds.
    pub heard_before_s: Option<u64>,
    /// Since when it is told that notifications are missing.
    pub silent_since: Option<Timestamp>,
}

/// The account as it is stored.
#[must_use]
pub fn account(facts: &AccountFacts) -> Vec<Finding> {
    let of = |check, bad: Option<String>, good: String| match bad {
        Some(bad) => Finding::new(check, Severity::Warning, bad),
        None => Finding::new(check, Severity::Ok, good),
    };
    let heard = match (facts.silent_since, facts.heard_before_s) {
        (Some(since), _) => Err(format!("changes are found that no notification told of (told at {since})")),
        (None, None) => Err("no notification was accepted yet".to_owned()),
        (None, Some(seconds)) => Ok(format!("the last one came {} minutes ago", seconds / 60)),
    };
    let fault = facts.fault.as_ref().map(|(since, reason)| format!("at fault since {since}: {reason}"));
    vec![
        of(Check::Notifications, heard.clone().err(), heard.unwrap_or_default()),
        of(Check::StopSwitch, facts.stopped_since.map(|since| format!("on since {since}")), "off".to_owned()),
        of(Check::Recovery, facts.recovering.then(|| "going on".to_owned()), "none is going on".to_owned()),
        of(Check::AccountFault, fault, "none".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const EU: KnownTopics<'_> = KnownTopics { regions: &["eu-west-1"], owner: "291180941288" };

    fn topic(name: &str) -> TopicFacts {
        TopicFacts {
            arn: format!("arn:aws:sns:eu-west-1:291180941288:{name}"),
            region: "eu-west-1".to_owned(),
            owner: "291180941288".to_owned(),
            named_after_merchant: true,
        }
    }

    fn bad(list: &[TopicFacts], known: KnownTopics<'_>) -> Vec<(&'static str, Severity)> {
        let found = topics(list, &"A1".parse().unwrap(), Region::Eu, known);
        let bad = found.into_iter().filter(|finding| finding.severity != Severity::Ok);
        bad.map(|finding| (finding.check.as_str(), finding.severity)).collect()
    }

    #[test]
    fn a_topic_is_compared_with_what_is_published_and_only_ever_warned_of() {
        use Severity::Warning;
        assert_eq!(bad(&[topic("XA1"), topic("YA1")], EU), []);
        let elsewhere = TopicFacts { region: "us-east-1".to_owned(), ..topic("XA1") };
        assert_eq!(bad(&[elsewhere], EU), [("topics-region", Warning)]);
        let named = TopicFacts { named_after_merchant: false, ..topic("X") };
        assert_eq!(bad(&[named], EU), [("topics-merchant", Warning)]);
        let foreign = TopicFacts { owner: "1".to_owned(), ..topic("XA1") };
        assert_eq!(bad(&[foreign], EU), [("topics-account", Warning)]);
        assert_eq!(bad(&[topic("XA1"), topic("XA1"), topic("XA1")], EU), [("topics-repeated", Warning)]);
    }

    #[test]
    fn of_japan_nothing_is_published_so_nothing_is_said_about_its_region() {
        let unknown = KnownTopics { regions: &[], ..EU };
        assert_eq!(bad(&[topic("XA1")], unknown), [("topics-region", Severity::Unknown)]);
    }

    #[test]
    fn what_is_stored_about_the_account_is_told() {
        let at: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let bad = |facts: &AccountFacts| {
            let bad = account(facts).into_iter().filter(|finding| finding.severity != Severity::Ok);
            bad.map(|finding| finding.check.as_str()).collect::<Vec<_>>()
        };
        let good = AccountFacts { heard_before_s: Some(60), ..AccountFacts::default() };
        assert_eq!(bad(&good), [] as [&str; 0]);
        assert_eq!(bad(&AccountFacts::default()), ["notifications"], "none came yet");
        assert_eq!(bad(&AccountFacts { silent_since: Some(at), ..good.clone() }), ["notifications"]);
        assert_eq!(bad(&AccountFacts { stopped_since: Some(at), ..good.clone() }), ["stop-switch"]);
        assert_eq!(bad(&AccountFacts { recovering: true, ..good.clone() }), ["recovery"]);
        assert_eq!(bad(&AccountFacts { fault: Some((at, "HTTP401".to_owned())), ..good }), ["account-fault"]);
    }

    #[test]
    fn the_rest_is_a_warning_where_there_is_something_to_say() {
        assert_eq!(key(Ok(())).severity, Severity::Ok);
        assert_eq!(key(Err("no key".to_owned())).severity, Severity::Error);
        assert_eq!(update_link(None).severity, Severity::Ok);
        assert_eq!(update_link(Some("x")).severity, Severity::Warning);
        assert_eq!(policies(&["a".to_owned(), "b".to_owned()]).found, "a; b");
        assert_eq!(encryption(None, true).severity, Severity::Ok);
        assert_eq!(encryption(Some("redis"), false).severity, Severity::Ok);
        assert_eq!(encryption(Some("redis"), true).severity, Severity::Warning);
    }
}
