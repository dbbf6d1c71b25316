//! A private Redis for the demo and the tests: its own folder, its own socket, append-only with fsync always. It never touches a Redis
//! that is already running, and ends with its owner.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::clock::Stopwatch;

/// How long a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks whether it has.
const START_POLL: Duration = Duration::from_millis(5);

/// Why there is no private Redis.
#[derive(Debug, thiserror::Error)]
pub enum RedisServerError {
    /// The program is missing or cannot be started.
    #[error("redis-server cannot be started ({0}); `make setup` installs it")]
    Program(std::io::Error),
    /// There is no place for its data.
    #[error("no temporary folder for Redis: {0}")]
    Folder(std::io::Error),
    /// It does not answer.
    #[error("redis-server did not answer within {START_TIMEOUT:?}")]
    Silent,
}

/// A running, or stopped, private Redis.
#[derive(Debug)]
pub struct RedisServer {
    folder: TempDir,
    child: Option<Child>,
    settings: Vec<String>,
}

impl RedisServer {
    /// Starts a server on an empty folder.
    ///
    /// # Errors
    /// When the program is missing or does not answer in time.
    pub fn start() -> Result<Self, RedisServerError> {
        Self::start_with(&[])
    }

    /// As [`Self::start`], with more of the server's own settings, such as `--tls-port`; they come last, so they win.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(settings: &[&str]) -> Result<Self, RedisServerError> {
        let folder = TempDir::with_prefix("amazon-pay-ipn-redis-").map_err(RedisServerError::Folder)?;
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { folder, child: None, settings };
        server.start_again()?;
        Ok(server)
    }

    /// The URL of the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// Starts the server on the data it left; does nothing while it runs.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_again(&mut self) -> Result<(), RedisServerError> {
        if self.child.is_some() {
            return Ok(());
        }
        let _ = std::fs::remove_file(self.socket());
        let folder = self.folder.path().display().to_string();
        let socket = self.socket().display().to_string();
        let settings = [
            ["--port", "0"],
            ["--unixsocket", &socket],
            ["--dir", &folder],
            ["--appendonly", "yes"],
            ["--appendfsync", "always"],
            ["--save", ""],
            ["--maxmemory-policy", "noeviction"],
        ];
        // Where it exists, setpriv ends the server even if its owner is killed.
        let more = &self.settings;
        let spawn = |mut command: Command| {
            command
                .args(settings.as_flattened())
                .args(more)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        };
        let mut guarded = Command::new("setpriv");
        guarded.args(["--pdeathsig", "KILL", "redis-server"]);
        let child =
            spawn(guarded).or_else(|_| spawn(Command::new("redis-server"))).map_err(RedisServerError::Program)?;
        self.child = Some(child);
        self.wait_until_it_answers()
    }

    fn wait_until_it_answers(&mut self) -> Result<(), RedisServerError> {
        let stopwatch = Stopwatch::start();
        while stopwatch.elapsed() < START_TIMEOUT {
            if self.answers() {
                return Ok(());
            }
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                self.child = None;
                return Err(RedisServerError::Program(std::io::Error::other(format!("it ended with {status}"))));
            }
            std::thread::sleep(START_POLL);
        }
        Err(RedisServerError::Silent)
    }

    fn answers(&self) -> bool {
        let ping = || -> std::io::Result<bool> {
            let mut stream = UnixStream::connect(self.socket())?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0_u8; 5];
            stream.read_exact(&mut answer)?;
            Ok(&answer == b"+PONG")
        };
        ping().unwrap_or(false)
    }

    /// Ends the server at once, as a crash would. Its data stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_server_starts_again_on_its_data() {
        let mut server = RedisServer::start().unwrap();
        let send = |server: &RedisServer, command: &str| {
            let mut stream = UnixStream::connect(server.socket()).unwrap();
            stream.write_all(command.as_bytes()).unwrap();
            let mut answer = [0_u8; 64];
            let length = stream.read(&mut answer).unwrap();
            String::from_utf8_lossy(&answer[..length]).into_owned()
        };
        assert_eq!(send(&server, "SET a 1\r\n"), "+OK\r\n");
        server.kill();
        assert!(!server.answers());
        server.start_again().unwrap();
        assert_eq!(send(&server, "GET a\r\n"), "$1\r\n1\r\n");
    }
}
