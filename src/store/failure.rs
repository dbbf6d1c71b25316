//! What went wrong at Redis, in words that name the setting to mend. Never holds a password: neither the crate's errors nor the
//! server's texts do, and the URL is not at hand here.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use rustls::{CertificateError, Error as TlsError, InvalidMessage};

const ACL: &str = "docs/REDIS.md has the ACL that is needed";

/// What kind of failure it is. Each is answered with 503 and passes without a restart, once its cause has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or a lost one.
    NoConnection,
    /// No answer in time. The command may have been executed.
    TimedOut,
    /// User or password.
    Authentication,
    /// The user may not do this.
    Forbidden,
    /// The server reads its data (`LOADING`).
    Loading,
    /// The server is a replica, or the way leads to one (`READONLY`, `MASTERDOWN`).
    Replica,
    /// The server is at its `maxmemory` (`OOM`).
    Full,
    /// The server cannot write to its disk (`MISCONF`).
    Disk,
    /// Fewer replicas than the server (`NOREPLICAS`) or `WAIT_REPLICAS` wants.
    TooFewReplicas,
    /// The account's slot is at another node (`MOVED`), or on its way there (`ASK`, `TRYAGAIN`).
    SlotMoved,
    /// The cluster does not work (`CLUSTERDOWN`).
    ClusterDown,
    /// A script of somebody runs for too long (`BUSY`).
    Busy,
    /// Anything else that the server refuses.
    Refused,
}

impl Failure {
    pub(super) fn of(error: &RedisError) -> Self {
        use ServerErrorKind as Kind;
        if is_authentication(error) {
            return Self::Authentication;
        }
        if is_forbidden(error) {
            return Self::Forbidden;
        }
        match (error.kind(), error.code()) {
            (ErrorKind::Server(Kind::BusyLoading), _) => Self::Loading,
            (ErrorKind::Server(Kind::ReadOnly | Kind::MasterDown), _) | (_, Some("UNBLOCKED")) => Self::Replica,
            (ErrorKind::Server(Kind::Moved | Kind::Ask | Kind::TryAgain), _) => Self::SlotMoved,
            (ErrorKind::Server(Kind::ClusterDown), _) => Self::ClusterDown,
            (_, Some("OOM")) => Self::Full,
            (_, Some("MISCONF")) => Self::Disk,
            (_, Some("NOREPLICAS")) => Self::TooFewReplicas,
            (_, Some("BUSY")) => Self::Busy,
            (ErrorKind::Server(_) | ErrorKind::Extension, _) => Self::Refused,
            _ if error.is_timeout() => Self::TimedOut,
            _ => Self::NoConnection,
        }
    }

    /// For callers, who need not know what the server said.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoConnection => "Redis does not answer",
            Self::TimedOut => "Redis did not answer in time",
            Self::Authentication => "Redis refuses the user or the password",
            Self::Forbidden => "the Redis user lacks a permission",
            Self::Loading => "Redis is still reading its data",
            Self::Replica => "this Redis is a replica now, and only a primary takes writes",
            Self::Full => "Redis is out of memory (maxmemory)",
            Self::Disk => "Redis cannot write to its disk",
            Self::TooFewReplicas => "too few replicas of Redis confirm writes",
            Self::SlotMoved => "the account moves to another node of the Redis cluster",
            Self::ClusterDown => "the Redis cluster is down",
            Self::Busy => "Redis is busy with a script",
            Self::Refused => "Redis refuses",
        }
    }
}

/// The error in words.
pub(super) fn explain(error: &RedisError) -> String {
    let text = error.to_string();
    if is_authentication(error) {
        return match error.code() {
            Some("NOAUTH") => format!("Redis wants a user and a password that REDIS_URL does not have: {text}"),
            _ => format!("Redis refuses the user or the password of REDIS_URL (WRONGPASS): {text}"),
        };
    }
    if is_forbidden(error) {
        return format!("the Redis user of REDIS_URL lacks a permission: {text}; {ACL}");
    }
    if text.contains("refused to switch database") {
        return format!("Redis refuses the database that REDIS_URL names: {text}; {ACL}");
    }
    match error.kind() {
        // It answers well enough, and this is what it says.
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => {
            format!("the Redis of REDIS_URL is a replica, and only a primary takes writes: {text}")
        }
        ErrorKind::Server(_) | ErrorKind::Extension if Failure::of(error) != Failure::Refused => {
            format!("{}: {text}", Failure::of(error).as_str())
        }
        ErrorKind::Server(_) | ErrorKind::Extension => format!("Redis refuses: {text}"),
        _ => tls(&text).unwrap_or_else(|| format!("Redis does not answer: {text}")),
    }
}

/// Whether the server did not accept who we are.
pub(super) fn is_authentication(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}

/// Whether the user may not do this. A script that is refused a command ends with an error of no code of its own.
fn is_forbidden(error: &RedisError) -> bool {
    let of_a_script = || {
        let text = error.to_string();
        // Redis 7.0; Redis 7.2 and later, and Valkey.
        text.contains("The user executing the script can't") || text.contains("ACL failure in script")
    };
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::NoPerm) => true,
        ErrorKind::Server(_) | ErrorKind::Extension => of_a_script(),
        _ => false,
    }
}

/// The crate hides the error of the TLS library inside of an I/O error; its text is all that can be seen from here.
fn tls(text: &str) -> Option<String> {
    let certificate = |why: CertificateError| TlsError::InvalidCertificate(why).to_string();
    // A bad signature: there is a CA of the issuer's name, but it is another one.
    if [CertificateError::UnknownIssuer, CertificateError::BadSignature]
        .map(certificate)
        .iter()
        .any(|known| known == text)
    {
        let issuers = "REDIS_CA_FILE (without it: of the system's roots)";
        return Some(format!("the certificate of Redis is refused: no CA of {issuers} issued it: {text}"));
    }
    if text.starts_with("failed to read PEM") {
        return Some(format!("the system's CA certificates cannot be read: {text}"));
    }
    if text.contains("not valid for name") {
        return Some(format!(
            "the certificate of Redis is refused: it is for another host than REDIS_URL names: {text}"
        ));
    }
    if text.contains("certificate expired") || text == certificate(CertificateError::Expired) {
        return Some(format!("the certificate of Redis is refused: it has expired: {text}"));
    }
    if text.starts_with("invalid peer certificate") {
        return Some(format!("the certificate of Redis is refused: {text}"));
    }
    if text == TlsError::InvalidMessage(InvalidMessage::InvalidContentType).to_string() {
        return Some(format!("Redis does not speak TLS at the port of REDIS_URL, and rediss:// wants it: {text}"));
    }
    if text.starts_with("received fatal alert") {
        let certificate = "it may want another REDIS_CLIENT_CERTIFICATE_FILE, or speak no TLS version from 1.2 on";
        return Some(format!("Redis broke the TLS handshake off; {certificate}: {text}"));
    }
    if text.starts_with("peer is incompatible") {
        return Some(format!("Redis and this service have no TLS version (1.2, 1.3) or cipher in common: {text}"));
    }
    None
}
