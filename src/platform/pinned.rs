//! TLS without a certificate authority: the server makes its own certificate and publishes its SHA-256 where only it can
//! write; the client accepts that certificate and no other.
//!
//! Names and validity are not looked at: the fingerprint says more than both. The handshake's signature is verified as
//! always, so that knowing the certificate (it is public) is not enough to be the server.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime,
};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, ServerConfig, SignatureScheme,
};

/// What both ends speak: gRPC needs HTTP/2.
const ALPN: &[u8] = b"h2";

/// Why there is no certificate or no configuration.
#[derive(Debug, thiserror::Error)]
pub enum PinnedError {
    /// No certificate could be made.
    #[error("a certificate cannot be made")]
    Generate(#[from] rcgen::Error),
    /// The TLS library does not accept it.
    #[error("TLS cannot be set up")]
    Tls(#[from] Error),
    /// Not a fingerprint.
    #[error("a SHA-256 is 64 lower-case hex digits")]
    Fingerprint,
}

impl PinnedError {
    /// A bounded name for logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Generate(_) => "Generate",
            Self::Tls(_) => "Tls",
            Self::Fingerprint => "Fingerprint",
        }
    }
}

/// SHA-256 of a certificate (DER). Not secret. Written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// That of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = PinnedError;

    fn from_str(text: &str) -> Result<Self, PinnedError> {
        let digits = text.as_bytes();
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return Err(PinnedError::Fingerprint);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = value(pair[0]).zip(value(pair[1])).ok_or(PinnedError::Fingerprint)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

/// A certificate of one's own and its key. Made anew at every start, never stored.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Identity {
    /// Makes one.
    pub fn generate() -> Result<Self, PinnedError> {
        let made = rcgen::generate_simple_self_signed(["pinned.tokenward.dev".to_owned()])?;
        Ok(Self { certificate: made.cert.der().clone(), key: made.signing_key.serialize_der().into() })
    }

    /// What clients pin.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// The server's side of TLS.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, PinnedError> {
        let key = PrivateKeyDer::Pkcs8(self.key.clone_key());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(config))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint())
    }
}

/// The client's side of TLS: trusts the certificate with this fingerprint, and no other.
pub fn client_config(fingerprint: Fingerprint) -> Result<Arc<ClientConfig>, PinnedError> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pin { fingerprint, algorithms }))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// The one provider of cryptography: named, so that another crate's choice of a default cannot matter.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[derive(Debug)]
struct Pin {
    fingerprint: Fingerprint,
    algorithms: WebPkiSupportedAlgorithms,
}

/// The server shows another certificate than the one that was published.
#[derive(Debug, thiserror::Error)]
#[error("the certificate has the SHA-256 {found}, pinned is {pinned}")]
struct Mismatch {
    found: Fingerprint,
    pinned: Fingerprint,
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = Fingerprint::of(end_entity);
        if bool::from(found.0.ct_eq(&self.fingerprint.0)) {
            return Ok(ServerCertVerified::assertion());
        }
        // Fails closed: no report goes to a stranger.
        let mismatch = Mismatch { found, pinned: self.fingerprint };
        Err(CertificateError::Other(OtherError(Arc::new(mismatch))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    async fn handshake(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Result<(), std::io::Error> {
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        let name = ServerName::try_from("elsewhere.example").expect("a name");
        let accept = TlsAcceptor::from(server).accept(theirs);
        let (client, _server) = tokio::join!(TlsConnector::from(client).connect(name, ours), accept);
        client.map(|_| ())
    }

    #[tokio::test]
    async fn only_the_certificate_with_the_fingerprint_is_trusted_whatever_its_name() {
        let (ours, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        assert_ne!(ours.fingerprint(), other.fingerprint());
        let client = || client_config(ours.fingerprint()).unwrap();
        handshake(ours.server_config().unwrap(), client()).await.expect("trusted");
        let error = handshake(other.server_config().unwrap(), client()).await.expect_err("not pinned");
        assert!(error.to_string().contains(&other.fingerprint().to_string()), "{error}");
    }

    #[tokio::test]
    async fn who_only_knows_the_certificate_is_not_the_server() {
        use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
        use tokio_rustls::rustls::sign::CertifiedKey;
        #[derive(Debug)]
        struct Stolen(Arc<CertifiedKey>);
        impl ResolvesServerCert for Stolen {
            fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
                Some(self.0.clone())
            }
        }
        let (ours, thief) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let key = ring::sign::any_supported_type(&PrivateKeyDer::Pkcs8(thief.key.clone_key())).unwrap();
        let shown = Arc::new(CertifiedKey::new(vec![ours.certificate.clone()], key));
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Stolen(shown)));
        let client = client_config(ours.fingerprint()).unwrap();
        let error = handshake(Arc::new(server), client).await.expect_err("a bad signature");
        assert!(error.to_string().contains("BadSignature"), "{error}");
    }

    #[test]
    fn fingerprints_are_read_as_they_are_written() {
        let fingerprint = Identity::generate().unwrap().fingerprint();
        assert_eq!(fingerprint.to_string().parse::<Fingerprint>().unwrap(), fingerprint);
        for wrong in ["", "00", &"0".repeat(63), &"0".repeat(65), &"A".repeat(64), &"é".repeat(32)] {
            assert_eq!(wrong.parse::<Fingerprint>().expect_err(wrong).category(), "Fingerprint");
        }
        assert!(!format!("{:?}", Identity::generate().unwrap()).contains("PRIVATE"));
    }
}
