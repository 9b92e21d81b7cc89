//! Certificates for test servers, from an authority of their own.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ED25519, PKCS_RSA_SHA256,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

const DAY: Duration = Duration::from_hours(24);

/// A certificate authority that nobody trusts yet.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A server's certificate and key.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    pem: String,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// Creates a new authority.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Authority of a test");
        Self(CertifiedIssuer::self_signed(params, key()).unwrap_or_else(|error| panic!("no certificate: {error}")))
    }

    /// Returns its certificate, for clients that should trust it.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for this host, a name or an address.
    pub fn issue(&self, host: &str) -> Identity {
        self.sign(&params(host))
    }

    /// Issues a certificate that has expired.
    pub fn issue_expired(&self, host: &str) -> Identity {
        let mut params = params(host);
        params.not_before = (SystemTime::now() - 20 * DAY).into();
        params.not_after = (SystemTime::now() - DAY).into();
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = key();
        let certificate = params.signed_by(&key, &self.0).unwrap_or_else(|error| panic!("no certificate: {error}"));
        Identity::new(&certificate, &key)
    }
}

/// Generates a signing key as DKIM wants it, RSA or Ed25519. Returns the private key in PEM
/// (PKCS #8) and the public key in base64: the whole SPKI for RSA, the bare key for Ed25519.
pub fn signing_key(is_rsa: bool) -> (String, String) {
    let key = if is_rsa { KeyPair::generate_for(&PKCS_RSA_SHA256) } else { KeyPair::generate_for(&PKCS_ED25519) };
    let key = key.unwrap_or_else(|error| panic!("no key: {error}"));
    let public: String = key.public_key_pem().lines().filter(|line| !line.starts_with('-')).map(str::trim).collect();
    // The first 12 bytes, 16 characters of base64, name the type of the key.
    (key.serialize_pem(), if is_rsa { public } else { public[16..].to_owned() })
}

impl Identity {
    /// Creates a self-signed certificate.
    pub fn self_signed(host: &str) -> Self {
        let key = key();
        let certificate = params(host).self_signed(&key).unwrap_or_else(|error| panic!("no certificate: {error}"));
        Self::new(&certificate, &key)
    }

    fn new(certificate: &Certificate, key: &KeyPair) -> Self {
        let pem = certificate.pem() + &key.serialize_pem();
        Self { certificate: certificate.der().clone(), key: key.serialize_der(), pem }
    }

    /// Returns certificate and key in PEM, for a server that reads them from a file.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns the TLS configuration for a server.
    pub fn server(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![self.certificate.clone()], key));
        Arc::new(config.unwrap_or_else(|error| panic!("no TLS: {error}")))
    }
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap_or_else(|error| panic!("no key: {error}"))
}

fn params(host: &str) -> CertificateParams {
    CertificateParams::new([host.to_owned()]).unwrap_or_else(|error| panic!("{host}: {error}"))
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}
