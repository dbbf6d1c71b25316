//! Asks for what the preflight judges: the settings, Redis, Amazon and the host of certificates. `serve` and `check` use the same.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::timeout;

use crate::amazon_pay::AmazonPay;
use crate::config::Settings;
use crate::model::ids::{Environment, Region};
use crate::preflight::settings::{AccountFacts, KnownTopics, TopicFacts};
use crate::preflight::{Check, Finding, Severity, amazon, server, settings};
use crate::recovery::reminders::link_warning;
use crate::sns::{self, SnsSettings};
use crate::store::account::AccountStatus;
use crate::store::{Store, StoreError};

/// No single question to Redis takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the settings show by themselves.
#[must_use]
pub fn of_settings(given: &Settings) -> Vec<Finding> {
    let account = &given.account;
    let topics: Vec<TopicFacts> = given
        .sns
        .topics
        .iter()
        .map(|topic| TopicFacts {
            arn: topic.as_str().to_owned(),
            region: topic.region().to_owned(),
            owner: topic.owner().to_owned(),
            named_after_merchant: topic.is_named_after(&account.merchant),
        })
        .collect();
    let known = KnownTopics {
        // Of Japan none is published: those of `regions_of` are where one looks first.
        regions: if account.region == Region::Jp { &[] } else { sns::regions_of(account.region) },
        owner: sns::AMAZON_PAY_ACCOUNT,
    };
    let mut findings = settings::topics(&topics, &account.merchant, account.region, known);
    let policies = &given.policies;
    findings.push(settings::update_link(link_warning(account.region, policies.default_policy())));
    findings.push(settings::policies(&policies.warnings()));
    let host = given.store.unencrypted_host();
    findings.push(settings::encryption(host.as_deref(), account.environment == Environment::Live));
    findings
}

/// What the server says about itself.
///
/// # Errors
/// When it does not answer.
pub async fn of_server(store: &Store, accepted: bool) -> Result<Vec<Finding>, StoreError> {
    let mut findings = server::set_up(&store.server_facts().await?, accepted);
    findings.push(server::clock(store.clock_difference().await?));
    Ok(findings)
}

/// Redis from the first connection on: each question by itself, so that one that cannot be asked hides no other.
pub async fn of_redis(store: &Store, accepted: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let reachable = bounded(store.server_facts()).await;
    let facts = match reachable {
        Ok(facts) => facts,
        Err(why) => {
            // Whoever may not ask for INFO, or has a wrong password, is told so in better words.
            let why = match bounded(store.check_access(None)).await {
                Err(better) => better,
                Ok(()) => why,
            };
            return vec![Finding::new(Check::RedisReachable, Severity::Error, why)];
        }
    };
    findings.push(Finding::new(Check::RedisReachable, Severity::Ok, "Redis answers"));
    let of = |check, severity, found: String| Finding::new(check, severity, found);
    findings.push(match bounded(store.check_access(None)).await {
        Ok(()) if facts.version.is_some_and(|version| version < (7, 0, 0)) => {
            let found = "a server before 7.0 cannot tell".to_owned();
            of(Check::RedisPermissions, Severity::Unknown, found)
        }
        Ok(()) => of(Check::RedisPermissions, Severity::Ok, "none is missing".to_owned()),
        Err(why) => of(Check::RedisPermissions, Severity::Error, why),
    });
    findings.extend(server::set_up(&facts, accepted));
    findings.push(match bounded(store.clock_difference()).await {
        Ok(difference) => server::clock(difference),
        Err(why) => of(Check::RedisClock, Severity::Unknown, why),
    });
    let marker = match bounded(store.account()).await {
        Ok(status) => match bounded(store.marker_is_ours()).await {
            Ok(true) => Ok(status),
            Ok(false) => Err("the marker names another merchant or environment: it was copied".to_owned()),
            Err(why) => Err(why),
        },
        Err(why) => Err(why),
    };
    match marker {
        Ok(status) => {
            findings.push(of(Check::RedisMarker, Severity::Ok, "there is a marker of this account".to_owned()));
            findings.extend(settings::account(&facts_of(&status)));
        }
        Err(why) => findings.push(of(Check::RedisMarker, Severity::Error, why)),
    }
    findings.push(match bounded(store.accounts_under_prefix()).await {
        Ok(accounts) => server::other_accounts(&accounts.own, &accounts.found, accounts.left_out),
        Err(why) if why.contains("lacks a permission") => {
            of(Check::RedisOtherAccounts, Severity::Unknown, "not known: SCAN is not permitted".to_owned())
        }
        Err(why) => of(Check::RedisOtherAccounts, Severity::Unknown, format!("not known: {why}")),
    });
    findings
}

/// What is stored about the account, as the preflight judges it.
#[must_use]
pub fn facts_of(status: &AccountStatus) -> AccountFacts {
    AccountFacts {
        stopped_since: status.stopped_since,
        fault: status.fault.as_ref().map(|fault| (fault.since, fault.reason.clone())),
        recovering: status.recovering,
        heard_before_s: status.since_notification.map(|since| since.as_secs()),
        silent_since: status.silent_since,
    }
}

/// One harmless signed call.
pub async fn of_amazon(client: &AmazonPay) -> Vec<Finding> {
    let probe = client.probe(Duration::ZERO).await;
    amazon::first_call(&probe, client.clock_skew())
}

/// Harmless calls with older and older dates, until one is refused. `x` is `CONFIRMATION_DELAY`.
pub async fn of_date_tolerance(client: &AmazonPay, x: Duration) -> Finding {
    let mut calls = Vec::new();
    // Without a difference of the clocks the dates are what they seem; with one, the signature's age is counted by Amazon's.
    let skew = client.clock_skew();
    for age in amazon::ages(x, skew) {
        let taken = amazon::Taken::read(&client.probe(age).await);
        calls.push((age, taken));
        if taken != amazon::Taken::Yes {
            break;
        }
    }
    amazon::date_tolerance(&calls, x, skew.or(Some(SignedDuration::ZERO)))
}

/// The hosts of signing certificates.
pub async fn of_certificate_hosts(given: &SnsSettings) -> Finding {
    amazon::certificate_hosts(&sns::reach_certificate_hosts(given).await)
}

async fn bounded<T>(question: impl Future<Output = Result<T, StoreError>>) -> Result<T, String> {
    match timeout(PATIENCE, question).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}
