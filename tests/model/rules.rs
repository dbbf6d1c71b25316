//! The rules of the protocol, each a switch. On by default; a scenario switches one off and shows what breaks.

/// R1 to R18 of the design's model, as far as they concern the protocol. R16 (quota) and R17 (months) do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one switch")]
pub struct Rules {
    /// R1: a decline of a tainted send is confirmed under the same number. Off: the taint is wiped before `settle`.
    pub confirm_under_same_key: bool,
    /// R1: a repeat is marked too, by token. Off: it goes out unmarked.
    pub mark_repeats: bool,
    /// R2: signed before the mark. Off: signed when it is sent.
    pub sign_first: bool,
    /// R3, Amazon's side: a request older than X is refused. Off: the assumption does not hold.
    pub old_dates_are_refused: bool,
    /// R4: a refusal leaves a repeated number unknown. Off: `settle` sees each send as the first.
    pub refusals_settle_first_sends_only: bool,
    /// R5: a declined charge that was found resolves nothing. Off: it is taken for the answer.
    pub found_declines_resolve_nothing: bool,
    /// R5, the weaker form: the number in the charge's tag is compared. Matters only while the rule above is off.
    pub found_declines_are_compared: bool,
    /// R6: after a loss an intent is declared with its last number, or held. Off: it is taken as new.
    pub declare_after_loss: bool,
    /// R7: the token is a fence number and a nonce. Off: a number that a server which rolled back gives out twice.
    pub unique_token: bool,
    /// R7: marks are on the replica before the send.
    pub durable_marks: bool,
    /// R7: accepted notifications, cancellations, stops and closings are on the replica before they are answered.
    pub durable_answers: bool,
    /// R7: for X after the server changed each send is tainted.
    pub taint_after_failover: bool,
    /// R8: the mark looks for cancellation, closing, stop and another state itself.
    pub mark_checks: bool,
    /// R9: a cancellation is final only while nothing is unknown.
    pub cancel_waits_for_the_unknown: bool,
    /// R9: once a closing is wished for the permission is closed at Amazon before an unknown number is asked again. Off: it is asked first.
    pub closing_comes_first: bool,
    /// R9: an unknown number of a canceled intent is asked again. Off: it is given up, unverified.
    pub canceled_numbers_are_asked_again: bool,
    /// R10: an end with an unknown number is marked unverified.
    pub unverified_ends: bool,
    /// R11: the commit is monotone per intent.
    pub monotone_commit: bool,
    /// R11: the commit is checked by token.
    pub fenced_commit: bool,
    /// R11: a success whose lease was lost is noted.
    pub late_success_is_noted: bool,
    /// R12: each charge that a notification names is read.
    pub every_charge_is_read: bool,
    /// R13: the commit compares the wake number.
    pub commit_compares_wakes: bool,
    /// R14: the lease record decides, not the score.
    pub lease_record_decides: bool,
    /// R15: an early notification is no evidence.
    pub strict_evidence: bool,
    /// R18: an operator's new number waits for X.
    pub operator_waits_for_x: bool,
}

impl Rules {
    /// All on.
    pub const ALL: Self = Self {
        confirm_under_same_key: true,
        mark_repeats: true,
        sign_first: true,
        old_dates_are_refused: true,
        refusals_settle_first_sends_only: true,
        found_declines_resolve_nothing: true,
        found_declines_are_compared: true,
        declare_after_loss: true,
        unique_token: true,
        durable_marks: true,
        durable_answers: true,
        taint_after_failover: true,
        mark_checks: true,
        cancel_waits_for_the_unknown: true,
        closing_comes_first: true,
        canceled_numbers_are_asked_again: true,
        unverified_ends: true,
        monotone_commit: true,
        fenced_commit: true,
        late_success_is_noted: true,
        every_charge_is_read: true,
        commit_compares_wakes: true,
        lease_record_decides: true,
        strict_evidence: true,
        operator_waits_for_x: true,
    };
}
