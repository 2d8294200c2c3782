//! The certificate that proxies see: read from files, and read again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::platform::pinned;

/// How often the files are looked at. The kubelet itself takes up to a minute to bring a new Secret.
const LOOK: Duration = Duration::from_secs(10);
/// What is offered: HTTP/2 first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
const CERTIFICATE_FLAG: &str = "--tls-cert";
const KEY_FLAG: &str = "--tls-key";

/// Why a pair of files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of them cannot be read.
    #[error("{flag} {path} cannot be read")]
    Read {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// One of them is not what it should be.
    #[error("{flag} {path} holds no usable PEM")]
    Pem {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PemError,
    },
    /// Each is fine, together they are not.
    #[error("--tls-cert {certificate} and --tls-key {key} cannot be used together")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: tokio_rustls::rustls::Error,
    },
}

impl TlsError {
    /// A bounded name for logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Read { .. } => "TlsRead",
            Self::Pem { .. } => "TlsPem",
            Self::Pair { .. } => "TlsPair",
        }
    }
}

/// A pair of files and the configuration that was made of them last.
#[derive(Debug)]
pub struct Certificates {
    certificate: PathBuf,
    key: PathBuf,
    current: Arc<ArcSwap<ServerConfig>>,
    /// SHA-256 of what was tried last, usable or not: the same trouble is said once.
    tried: [u8; 32],
}

impl Certificates {
    /// Reads the files. At the start, a pair that cannot be used is an error.
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let files = Files::read(&certificate, &key)?;
        let config = files.config(&certificate, &key)?;
        Ok(Self { certificate, key, current: Arc::new(ArcSwap::from(config)), tried: files.digest() })
    }

    /// The configuration, for `serve`: new connections take what stands there.
    pub fn current(&self) -> Arc<ArcSwap<ServerConfig>> {
        self.current.clone()
    }

    /// Looks at the files again and again until `shutdown`.
    pub async fn keep(mut self, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            // Files may lie on anything; reading them must not hold up answers.
            let looked = tokio::task::spawn_blocking(move || {
                let result = self.look();
                (self, result)
            });
            let Ok((this, result)) = looked.await else { return };
            self = this;
            match result {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(certificate = %self.certificate.display(), "took up a new certificate")
                }
                Err(error) => {
                    tracing::error!(
                        category = error.category(),
                        error = super::chain(&error),
                        "the new certificate cannot be used; the one before stays in use"
                    );
                }
            }
        }
    }

    /// Looks at the files once: whether a new pair was taken up. An error leaves the old one in use, and is returned once.
    pub fn look(&mut self) -> Result<bool, TlsError> {
        let files = match Files::read(&self.certificate, &self.key) {
            Ok(files) => files,
            Err(_) if self.tried == [0; 32] => return Ok(false),
            Err(error) => {
                self.tried = [0; 32];
                return Err(error);
            }
        };
        let digest = files.digest();
        if digest == self.tried {
            return Ok(false);
        }
        self.tried = digest;
        // Certificate and key are replaced one after the other: a pair that does not fit yet fits at the next look.
        self.current.store(files.config(&self.certificate, &self.key)?);
        Ok(true)
    }
}

/// What stands in the files.
struct Files {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Files {
    fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |flag, path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read { flag, path: path.to_owned(), source })
        };
        Ok(Self {
            certificate: read(CERTIFICATE_FLAG, certificate)?,
            key: Zeroizing::new(read(KEY_FLAG, key)?),
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        // With its length, so that what moves from one file to the other shows.
        hash.update(self.certificate.len().to_le_bytes());
        hash.update(&self.certificate);
        hash.update(&*self.key);
        hash.finalize().into()
    }

    fn config(&self, certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
        let pem = |flag, path: &Path, source| TlsError::Pem { flag, path: path.to_owned(), source };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(|source| pem(CERTIFICATE_FLAG, certificate, source))?;
        if chain.is_empty() {
            return Err(pem(CERTIFICATE_FLAG, certificate, PemError::NoItemsFound));
        }
        let secret = PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| pem(KEY_FLAG, key, source))?;
        let failed =
            |source| TlsError::Pair { certificate: certificate.to_owned(), key: key.to_owned(), source };
        let mut config = ServerConfig::builder_with_provider(pinned::provider())
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .map_err(failed)?;
        config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    /// A folder with a pair of files; gone at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("tokenward-tls-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn certificate(&self) -> PathBuf {
            self.0.join("tls.crt")
        }

        fn key(&self) -> PathBuf {
            self.0.join("tls.key")
        }

        fn write(&self, certificate: &str, key: &str) {
            std::fs::write(self.certificate(), certificate).unwrap();
            std::fs::write(self.key(), key).unwrap();
        }

        fn load(&self) -> Result<Certificates, TlsError> {
            Certificates::load(self.certificate(), self.key())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn pem(label: &str, der: &[u8]) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["gate.example".to_owned()]).unwrap();
        (pem("CERTIFICATE", made.cert.der()), pem("PRIVATE KEY", &made.signing_key.serialize_der()))
    }

    #[test]
    fn a_pair_that_cannot_be_used_names_flag_and_file() {
        let folder = Folder::new("bad");
        let error = folder.load().expect_err("no files");
        assert_eq!(error.category(), "TlsRead");
        assert!(error.to_string().starts_with("--tls-cert "), "{error}");
        let ((certificate, key), (_, other)) = (pair(), pair());
        for (certificate, key, category, flag) in [
            ("", key.as_str(), "TlsPem", "--tls-cert /"),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", &key, "TlsPem", "--tls-cert /"),
            (&certificate, "", "TlsPem", "--tls-key /"),
            (&certificate, &certificate, "TlsPem", "--tls-key /"),
            (&certificate, &other, "TlsPair", "--tls-cert /"),
        ] {
            folder.write(certificate, key);
            let error = folder.load().expect_err("unusable");
            assert!(error.category() == category && error.to_string().starts_with(flag), "{error}");
        }
    }

    #[test]
    fn a_new_pair_is_taken_up_and_a_bad_one_leaves_the_old_in_use() {
        let folder = Folder::new("reload");
        let (first, second) = (pair(), pair());
        folder.write(&first.0, &first.1);
        let mut certificates = folder.load().unwrap();
        let current = certificates.current();
        let before = current.load_full();
        assert!(!certificates.look().unwrap(), "nothing changed");

        folder.write(&second.0, &first.1);
        assert_eq!(certificates.look().expect_err("half a change").category(), "TlsPair");
        assert!(!certificates.look().unwrap(), "said once");
        assert!(Arc::ptr_eq(&before, &current.load_full()));

        std::fs::remove_file(folder.key()).unwrap();
        assert_eq!(certificates.look().expect_err("gone").category(), "TlsRead");
        assert!(!certificates.look().unwrap(), "said once");
        assert!(Arc::ptr_eq(&before, &current.load_full()));

        folder.write(&second.0, &second.1);
        assert!(certificates.look().unwrap());
        assert!(!Arc::ptr_eq(&before, &current.load_full()));
    }

    #[tokio::test(start_paused = true)]
    async fn it_looks_by_itself_until_told_to_stop() {
        let folder = Folder::new("keep");
        let (first, second) = (pair(), pair());
        folder.write(&first.0, &first.1);
        let certificates = folder.load().unwrap();
        let (current, shutdown) = (certificates.current(), CancellationToken::new());
        let before = current.load_full();
        let keeper = tokio::spawn(certificates.keep(shutdown.clone()));
        folder.write(&second.0, &second.1);
        while Arc::ptr_eq(&before, &current.load_full()) {
            tokio::time::sleep(LOOK).await;
        }
        shutdown.cancel();
        keeper.await.unwrap();
    }
}
