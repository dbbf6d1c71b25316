//! The folder of a sandbox: what others need to talk to it, readable by its owner alone.

use std::fmt::Write as _;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::json;

use super::super::trigger::for_a_shell;
use crate::model::ids::Region;
use crate::sandbox::{KeptKeys, Sandbox, new_token};

const SERVICE_ENV: &str = "service.env";
const TOKEN: &str = "internal-api-token";
const CLOCK: &str = "clock";
/// Says that the folder is one of ours.
const MARK: &str = "sandbox.json";

/// A folder that exists and is ours.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Opens or makes it; gives its absolute path, because others may run elsewhere.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| path.display().to_string())?;
        let folder = Self(path.canonicalize().with_context(|| path.display().to_string())?);
        let is_empty = folder.0.read_dir().with_context(|| path.display().to_string())?.next().is_none();
        ensure!(
            is_empty || folder.file(MARK).exists(),
            "{} holds something else: expected an empty folder, one that does not exist, or one of an earlier sandbox",
            path.display()
        );
        if is_empty {
            folder.write(MARK, "{}\n")?;
            folder.write(".gitignore", "*\n")?;
            folder.write(TOKEN, &format!("{}\n", new_token()))?;
        }
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn clock(&self) -> PathBuf {
        self.file(CLOCK)
    }

    pub(super) fn service_env(&self) -> PathBuf {
        self.file(SERVICE_ENV)
    }

    pub(super) fn private_key(&self) -> PathBuf {
        KeptKeys::merchant_private_key(&self.0)
    }

    pub(super) fn trust_anchors(&self) -> PathBuf {
        KeptKeys::trust_anchors(&self.0)
    }

    /// Writes the settings of `serve` and the same facts as JSON.
    pub(super) fn write_settings(
        &self,
        sandbox: &Sandbox,
        region: Region,
        redis_url: Option<&str>,
        listens: Option<SocketAddr>,
    ) -> anyhow::Result<()> {
        let path = |path: PathBuf| path.display().to_string();
        let base = sandbox.base_url();
        let settings = [
            ("AMAZON_PAY_REGION", region.as_str().to_owned()),
            ("AMAZON_PAY_MERCHANT_ID", sandbox.merchant_id().to_owned()),
            ("AMAZON_PAY_PUBLIC_KEY_ID", sandbox.public_key_id().to_owned()),
            ("AMAZON_PAY_PRIVATE_KEY_FILE", path(self.private_key())),
            ("AMAZON_PAY_API_BASE_URL", base.to_owned()),
            ("SNS_TOPIC_ARNS", sandbox.topic_arn().to_owned()),
            ("SNS_CERTIFICATE_BASE_URL", sandbox.certificate_base_url().to_owned()),
            ("SNS_CERTIFICATE_NAME", sandbox.certificate_name().to_owned()),
            ("SNS_TRUST_ANCHORS_FILE", path(self.trust_anchors())),
            ("SNS_API_BASE_URL", base.to_owned()),
            ("INTERNAL_API_TOKEN_FILE", path(self.file(TOKEN))),
            ("CLOCK_OFFSET_FILE", path(self.clock())),
        ];
        let mut text =
            "# Settings of `amazon-pay-ipn serve` for this sandbox; written anew at each start.\n".to_owned();
        for (name, value) in &settings {
            writeln!(text, "{name}={}", for_a_shell(value))?;
        }
        if let Some(address) = listens {
            writeln!(text, "# Where --notify posts.\nLISTEN_ADDR={address}")?;
        }
        match redis_url {
            Some(url) => writeln!(text, "REDIS_URL={}", for_a_shell(url))?,
            None => text.push_str("# REDIS_URL is for you to set, or start the sandbox with --with-redis.\n"),
        }
        writeln!(text, "# Not a setting of the service: for calls by hand.\nSANDBOX_CONTROL={base}/sandbox-control")?;
        self.write(SERVICE_ENV, &text)?;
        let facts = json!({
            "baseUrl": base,
            "controlUrl": format!("{base}/sandbox-control"),
            "region": region.as_str(),
            "merchantId": sandbox.merchant_id(),
            "publicKeyId": sandbox.public_key_id(),
            "privateKeyFile": path(self.private_key()),
            "topicArn": sandbox.topic_arn(),
            "certificateBaseUrl": sandbox.certificate_base_url(),
            "certificateName": sandbox.certificate_name(),
            "trustAnchorsFile": path(self.trust_anchors()),
            "clockOffsetFile": path(self.clock()),
            "serviceEnvFile": path(self.service_env()),
        });
        self.write(MARK, &format!("{facts:#}\n"))
    }

    /// All of it or nothing.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let (draft, path) = (self.file(&format!("{name}.new")), self.file(name));
        let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft);
        let written = options.and_then(|mut file| file.write_all(text.as_bytes()));
        written.and_then(|()| std::fs::rename(&draft, &path)).with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_of_somebody_else_is_left_alone_and_ones_own_is_taken_again() {
        let place = tempfile::tempdir().unwrap();
        let own = place.path().join("a/b");
        let token = |folder: &Folder| std::fs::read_to_string(folder.file(TOKEN)).unwrap();
        let first = token(&Folder::open(&own).unwrap());
        assert_eq!(token(&Folder::open(&own).unwrap()), first, "what a running service has read stays true");
        for entry in own.read_dir().unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
        assert_eq!(own.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let error = Folder::open(place.path()).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("holds something else"), "{error}");
        assert_eq!(place.path().read_dir().unwrap().count(), 1);
    }
}
