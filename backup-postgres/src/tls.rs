//! TLS as `sslmode` asks for it, by rustls (PostgreSQL manual §34.19).
//!
//! | sslmode | encrypted | the server's certificate |
//! |---|---|---|
//! | `disable`, `allow` | no; `allow` tries with TLS when the server insists | not looked at |
//! | `prefer` | when the server can | not looked at |
//! | `require` | always | not looked at, unless `sslrootcert` is there: then as `verify-ca` |
//! | `verify-ca` | always | signed by `sslrootcert` |
//! | `verify-full` | always | and made out to the host |
//!
//! `sslrootcert=system` takes the system's certificates and asks for `verify-full`. Called by [`crate::connect`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::conninfo::Parameters;
use crate::environment::Environment;
use crate::error::{Error, Result};

/// Where systems keep the certificates they trust.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only when the server insists.
    Allow,
    /// When the server can.
    Prefer,
    /// Always.
    Require,
    /// Always, to a server whose certificate an authority signed.
    VerifyCa,
    /// Always, to a server whose certificate is made out to the host.
    VerifyFull,
}

impl SslMode {
    /// Spells it as libpq does.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let all = [Self::Disable, Self::Allow, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];
        all.into_iter().find(|mode| mode.name() == text).ok_or_else(|| {
            Error::parameter("sslmode", format!("found {text:?}"))
                .with_hint("it is disable, allow, prefer, require, verify-ca or verify-full")
        })
    }
}

/// What is asked of TLS.
#[derive(Debug, Clone)]
pub(crate) struct TlsSettings {
    pub(crate) mode: SslMode,
    /// `system`, or a file of certificates.
    pub(crate) roots: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

impl TlsSettings {
    pub(crate) fn read(parameters: &Parameters, environment: &Environment) -> Result<Self> {
        let there = |name: &str| environment.in_home(name).filter(|path| path.is_file());
        let path = |key: &str| parameters.get(key).map(PathBuf::from);
        let roots = path("sslrootcert").or_else(|| there(".postgresql/root.crt"));
        let system = roots.as_deref() == Some(Path::new("system"));
        let mode = match parameters.get("sslmode") {
            Some(text) => SslMode::parse(text)?,
            None if system => SslMode::VerifyFull,
            None => SslMode::Prefer,
        };
        if system && mode != SslMode::VerifyFull {
            return Err(Error::parameter(
                "sslmode",
                format!("found {}, which is too weak beside sslrootcert=system", mode.name()),
            )
            .with_hint("use sslmode=verify-full"));
        }
        Ok(Self {
            mode,
            roots,
            certificate: path("sslcert").or_else(|| there(".postgresql/postgresql.crt")),
            key: path("sslkey").or_else(|| there(".postgresql/postgresql.key")),
        })
    }

    /// Makes the connector of this mode.
    ///
    /// # Errors
    /// `InvalidInput` when a certificate or key is missing or cannot be read.
    pub(crate) fn connector(&self) -> Result<MakeRustlsConnect> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::parameter("sslmode", error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(provider)?);
        let config = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) if self.mode != SslMode::Disable => {
                let chain = certificates("sslcert", certificate)?;
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| Error::parameter("sslkey", format!("{}: {error}", key.display())))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| Error::parameter("sslcert", error.to_string()))?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(MakeRustlsConnect::new(config))
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
        let by_authority = match self.mode {
            SslMode::VerifyCa | SslMode::VerifyFull => true,
            SslMode::Require => self.roots.is_some(),
            SslMode::Disable | SslMode::Allow | SslMode::Prefer => false,
        };
        if !by_authority {
            return Ok(Arc::new(AnyCertificate(provider)));
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(self.store()?), provider)
            .build()
            .map_err(|error| Error::parameter("sslrootcert", error.to_string()))?;
        Ok(if self.mode == SslMode::VerifyFull { inner } else { Arc::new(AnyName(inner)) })
    }

    /// Reads the certificates of the authorities.
    fn store(&self) -> Result<RootCertStore> {
        let Some(named) = &self.roots else {
            return Err(Error::parameter(
                "sslrootcert",
                format!("sslmode={} wants the certificate of an authority", self.mode.name()),
            )
            .with_hint("name its file: sslrootcert=FILE, or sslrootcert=system for those of the system"));
        };
        let system = named.as_path() == Path::new("system");
        let file = if system {
            let found = SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.is_file());
            found.map(Path::to_owned).ok_or_else(|| {
                Error::parameter(
                    "sslrootcert",
                    "this system has no file of certificates where they usually are",
                )
                .with_hint("install ca-certificates, or name a file")
            })?
        } else {
            named.clone()
        };
        let mut store = RootCertStore::empty();
        let found = certificates("sslrootcert", &file)?;
        let (added, _) = store.add_parsable_certificates(found);
        if added == 0 {
            return Err(Error::parameter("sslrootcert", format!("{} holds no certificate", file.display())));
        }
        Ok(store)
    }
}

fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |error: rustls::pki_types::pem::Error| {
        Error::parameter(key, format!("cannot read certificates from {}: {error}", file.display()))
    };
    CertificateDer::pem_file_iter(file).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

/// Takes any certificate, as `prefer` and `require` are defined: against listeners, not against impostors.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes a certificate of the authority whatever name it is made out to (`verify-ca`).
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The name is the last thing that is looked at: where only it does not fit, the authority signed.
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
