//! Certificate authorities that are trusted: those of the system, and those that the operator adds.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use state::file::read_bounded;
use tokio::sync::OnceCell;

/// Maximum bytes of a certificate file.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Default)]
pub struct Trust {
    extra: Vec<CertificateDer<'static>>,
    /// Built on first use, because reading the system's hundreds of certificates takes a while.
    config: OnceCell<Arc<ClientConfig>>,
}

impl Trust {
    /// Reads the operator's files. The error is one sentence.
    pub fn with(files: &[PathBuf]) -> anyhow::Result<Self> {
        let mut extra = Vec::new();
        for file in files {
            extra.extend(certificates(file).with_context(|| format!("egress.ca: cannot use {}", file.display()))?);
        }
        Ok(Self { extra, config: OnceCell::new() })
    }

    /// Returns the certificates from the operator's files.
    pub fn extra_roots(&self) -> Vec<CertificateDer<'static>> {
        self.extra.clone()
    }

    /// Returns the TLS configuration for HTTP/1.1 clients. The error is a fragment.
    pub async fn client(&self) -> Result<Arc<ClientConfig>, String> {
        let load = || async {
            let extra = self.extra.clone();
            let loaded = tokio::task::spawn_blocking(move || client(extra)).await;
            loaded.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        };
        self.config.get_or_try_init(load).await.cloned()
    }
}

fn client(extra: Vec<CertificateDer<'static>>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Verifier::new_with_extra_roots(extra, Arc::clone(&provider))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(file: &std::path::Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let content = read_bounded(file, FILE_BYTES_MAX)?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&content).collect::<Result<_, _>>().context("it is no PEM file")?;
    if certificates.is_empty() {
        bail!("there is no certificate in it: each begins with -----BEGIN CERTIFICATE-----");
    }
    // Checks that each can be an authority, before anybody relies on it.
    let mut store = RootCertStore::empty();
    for (number, certificate) in certificates.iter().enumerate() {
        store.add(certificate.clone()).with_context(|| format!("certificate {} in it", number + 1))?;
    }
    Ok(certificates)
}
