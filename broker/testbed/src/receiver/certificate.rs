//! Certificates for servers of a test, by an authority of its own.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ED25519, PKCS_RSA_SHA256,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

const DAY: Duration = Duration::from_hours(24);

/// An authority that nobody trusts yet.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a server shows, and its key.
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
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Authority of a test");
        Self(CertifiedIssuer::self_signed(params, key()).unwrap_or_else(|error| panic!("no certificate: {error}")))
    }

    /// Its certificate, for who is to trust it.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for this host: a name or an address.
    pub fn issue(&self, host: &str) -> Identity {
        self.sign(&params(host))
    }

    /// One that has run out.
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

/// A key to sign with: RSA, else Ed25519. The private one in PEM (PKCS #8), and the public one in base64, whole
/// (SPKI) of RSA, and bare of Ed25519, as DKIM wants them.
pub fn signing_key(is_rsa: bool) -> (String, String) {
    let key = if is_rsa { KeyPair::generate_for(&PKCS_RSA_SHA256) } else { KeyPair::generate_for(&PKCS_ED25519) };
    let key = key.unwrap_or_else(|error| panic!("no key: {error}"));
    let public: String = key.public_key_pem().lines().filter(|line| !line.starts_with('-')).map(str::trim).collect();
    // 12 bytes, which are 16 characters of base64, say what kind of key follows.
    (key.serialize_pem(), if is_rsa { public } else { public[16..].to_owned() })
}

impl Identity {
    /// One that nobody else vouches for.
    pub fn self_signed(host: &str) -> Self {
        let key = key();
        let certificate = params(host).self_signed(&key).unwrap_or_else(|error| panic!("no certificate: {error}"));
        Self::new(&certificate, &key)
    }

    fn new(certificate: &Certificate, key: &KeyPair) -> Self {
        let pem = certificate.pem() + &key.serialize_pem();
        Self { certificate: certificate.der().clone(), key: key.serialize_der(), pem }
    }

    /// Certificate and key, for a server that reads them from a file.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// For a server.
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
