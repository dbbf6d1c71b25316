//! Where things are sent on to: notifications to an older handler, traces to a collector.

use super::reader::Reader;
use crate::forwarder::ForwardSettings;
use crate::store::StoreSettings;
use crate::telemetry::trace::TraceSettings;

impl Reader {
    /// `None` also where it is wrong: then a mistake was noted.
    pub(super) fn forward(&mut self, store: Option<&StoreSettings>) -> Option<ForwardSettings> {
        let timeout = self.given.forward_timeout.clone();
        let timeout = self.duration("FORWARD_TIMEOUT", timeout, ForwardSettings::TIMEOUT);
        if timeout.is_some_and(|timeout| timeout > ForwardSettings::MAX_TIMEOUT) {
            self.mistake("FORWARD_TIMEOUT", "expected at most 30s: a process that is told to stop has 60 s to finish");
        }
        let give_up = self.given.forward_give_up.clone();
        let give_up = self.duration("FORWARD_GIVE_UP", give_up, ForwardSettings::GIVE_UP);
        let at_once = self.given.forward_at_once.clone().map_or(Some(ForwardSettings::AT_ONCE), |text| {
            let at_once = text.parse::<usize>().ok().filter(|at_once| (1..=64).contains(at_once));
            if at_once.is_none() {
                self.mistake("FORWARD_AT_ONCE", format!("expected a number from 1 to 64, got {text:?}"));
            }
            at_once
        });
        let url = self.given.forward_url.clone()?;
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if host.is_none_or(|host| host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '@')) {
            let expected =
                "expected an http:// or https:// address without a user or password, such as https://shop.example/ipn";
            self.mistake("FORWARD_URL", expected);
        }
        if let (Some(store), Some(give_up)) = (store, give_up)
            && give_up > store.journal_retention / 2
        {
            let expected = "expected at most half of JOURNAL_RETENTION: a notification may wait as long in the journal before it is tried";
            self.mistake("FORWARD_GIVE_UP", expected);
        }
        Some(ForwardSettings { url: url.into(), at_once: at_once?, timeout: timeout?, give_up: give_up? })
    }

    /// `None` also where it is wrong: then a mistake was noted.
    pub(super) fn traces(&mut self) -> Option<TraceSettings> {
        let share = self.given.trace_share.clone();
        let share = share.map_or(Some(1.0), |text| {
            let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
            if share.is_none() {
                self.mistake("TRACE_SHARE", format!("expected a number from 0 to 1, got {text:?}"));
            }
            share
        });
        let endpoint = self.given.otel_exporter_otlp_endpoint.clone()?;
        let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
        // A password in it would stand in the errors of the HTTP client, and so in the log; nor is it repeated here.
        if host.is_none_or(|host| host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '@')) {
            self.mistake(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "expected the address of a collector such as http://127.0.0.1:4318, without a user or password: they go into \
                 OTEL_EXPORTER_OTLP_HEADERS",
            );
        }
        Some(TraceSettings { endpoint, share: share? })
    }
}
