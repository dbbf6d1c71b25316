//! Whether the hosts that serve signing certificates can be reached.

use std::time::Duration;

use crate::sns::SnsSettings;

const TIMEOUT: Duration = Duration::from_secs(5);

/// The hosts from which certificates for the allow-listed topics are fetched, each with whether it answers HTTP, and why not.
pub async fn reach_certificate_hosts(settings: &SnsSettings) -> Vec<(String, Result<(), String>)> {
    let mut hosts: Vec<String> = match &settings.certificate_base_url {
        Some(base) => vec![base.clone()],
        None => settings.topics.iter().map(|topic| format!("https://{}", topic.certificate_host())).collect(),
    };
    hosts.sort_unstable();
    hosts.dedup();
    let client = reqwest::Client::builder()
        .https_only(settings.certificate_base_url.is_none())
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .timeout(TIMEOUT)
        .build();
    let mut reached = Vec::with_capacity(hosts.len());
    for host in hosts {
        let answered = match &client {
            // Any answer is one: it has no page at its root.
            Ok(client) => client.get(&host).send().await.map(|_| ()).map_err(|error| in_words(&error.without_url())),
            Err(error) => Err(in_words(error)),
        };
        reached.push((host, answered));
    }
    reached
}

fn in_words(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
