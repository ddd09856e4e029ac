mod revocation;

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature, CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::notes::note;
use crate::certificate::Certificate;
use crate::der;
use crate::error::Error;
use crate::role::Role;
use crate::settings::{ClientAuth, PeerCertificates, Settings, Verify};

/// What one context's ends demand of the other end's certificate: one for clients, one for servers.
pub(super) struct Verifier {
    role: Role,
    algorithms: WebPkiSupportedAlgorithms,
    schemes: Vec<SignatureScheme>,
    roots: Arc<RootCertStore>,
    /// The same, whole, in the same order.
    root_certificates: Vec<CertificateDer<'static>>,
    /// Checks the chains of a server's clients.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    hints: Vec<DistinguishedName>,
    lists: revocation::Lists,
    client_auth: ClientAuth,
    pins: Vec<[u8; 32]>,
    verify: Option<Verify>,
    accept_invalid_hostnames: bool,
    accept_invalid_certs: bool,
}

impl Verifier {
    pub fn new(
        role: Role,
        settings: &Settings,
        provider: &Arc<CryptoProvider>,
        schemes: Option<&[SignatureScheme]>,
    ) -> Result<Verifier, Error> {
        let algorithms = provider.signature_verification_algorithms;
        let supported = algorithms.supported_schemes();
        let mut verifier = Verifier {
            role,
            algorithms,
            schemes: match schemes {
                Some(wanted) => wanted.iter().copied().filter(|scheme| supported.contains(scheme)).collect(),
                None => supported,
            },
            roots: Arc::new(RootCertStore::empty()),
            root_certificates: Vec::new(),
            clients: None,
            hints: Vec::new(),
            lists: revocation::parse(settings)?,
            client_auth: settings.client_auth,
            pins: settings.pins.clone(),
            verify: settings.verify.clone(),
            accept_invalid_hostnames: settings.accept_invalid_hostnames,
            accept_invalid_certs: settings.accept_invalid_certs,
        };
        verifier.load_roots(settings)?;
        if role == Role::Server && settings.client_auth != ClientAuth::None {
            if !settings.accept_invalid_certs {
                if verifier.roots.is_empty() {
                    return Err(Error::invalid_input(
                        "client_auth needs add_root: whose certificates should the server accept?",
                    ));
                }
                let checker = WebPkiClientVerifier::builder_with_provider(verifier.roots.clone(), provider.clone());
                let checker = checker.build().map_err(|e| Error::invalid_input(format!("client_auth: {e}")))?;
                verifier.clients = Some(checker);
            }
            // As with OpenSSL: the system's roots, if they count, are not listed to the client.
            let mut own = RootCertStore::empty();
            for root in &settings.roots {
                // What can't be added has been refused by `load_roots`.
                let _ = own.add(CertificateDer::from(root.der()));
            }
            verifier.hints = own.subjects();
        }
        Ok(verifier)
    }

    fn load_roots(&mut self, settings: &Settings) -> Result<(), Error> {
        let mut roots = RootCertStore::empty();
        let with_system = settings.system_roots.unwrap_or(self.role == Role::Client);
        let is_used = self.role == Role::Client || settings.client_auth != ClientAuth::None;
        if with_system && is_used && !settings.accept_invalid_certs {
            // What is broken among them is passed over, as by the other engines.
            for root in rustls_native_certs::load_native_certs().certs {
                if roots.add(root.clone()).is_ok() {
                    self.root_certificates.push(root);
                }
            }
        }
        for root in &settings.roots {
            let root = CertificateDer::from(root.der().to_vec());
            roots.add(root.clone()).map_err(|e| super::setup_error("add_root", e))?;
            self.root_certificates.push(root);
        }
        self.roots = Arc::new(roots);
        Ok(())
    }

    /// The chain, from the peer's own certificate to the root, for which the peer can be trusted; the first one that
    /// `accept` takes.
    fn path<T>(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        accept: &dyn Fn(&VerifiedPath<'_>) -> bool,
        found: impl FnOnce(&VerifiedPath<'_>) -> T,
    ) -> Option<T> {
        let end_entity = EndEntityCert::try_from(end_entity).ok()?;
        let accept = |path: &VerifiedPath<'_>| match accept(path) {
            true => Ok(()),
            false => Err(webpki::Error::UnknownIssuer),
        };
        let roots = &self.roots.roots;
        let path = end_entity.verify_for_usage(
            self.algorithms.all,
            roots,
            intermediates,
            UnixTime::now(),
            self.usage(),
            None,
            Some(&accept),
        );
        path.ok().map(|path| found(&path))
    }

    /// Whether the peer's own certificate was given as a root.
    fn is_root(&self, end_entity: &CertificateDer<'_>) -> bool {
        self.root_certificates.iter().any(|root| root == end_entity)
    }

    /// The verdict on a peer of which the usual checks, which want an issuer, have said this. One that was given as a root
    /// needs none, and may be an authority besides, as what `openssl req -x509` makes is. What else is asked of a peer's own
    /// certificate holds for it too: its dates and its uses. (A revoked one stays so.)
    fn allow_root(
        &self,
        end_entity: &CertificateDer<'_>,
        now: UnixTime,
        usual: Result<(), rustls::Error>,
    ) -> Result<(), rustls::Error> {
        use rustls::Error::InvalidCertificate;
        let Err(objection) = usual else { return Ok(()) };
        let is_revoked = matches!(objection, InvalidCertificate(CertificateError::Revoked));
        if is_revoked || !self.is_root(end_entity) {
            return Err(objection);
        }
        let certificate = EndEntityCert::try_from(end_entity).map_err(|_| objection.clone())?;
        // With nobody to trust: whoever is still asked for an issuer has nothing else against it.
        let algorithms = self.algorithms.all;
        match certificate.verify_for_usage(algorithms, &[], &[], now, self.usage(), None, None).err() {
            Some(webpki::Error::UnknownIssuer) => Ok(()),
            // After the dates, and before the uses.
            Some(webpki::Error::CaUsedAsEndEntity) => match der::allows_use(end_entity, self.use_of_key()) {
                true => Ok(()),
                false => Err(CertificateError::InvalidPurpose.into()),
            },
            _ => Err(objection),
        }
    }

    fn usage(&self) -> KeyUsage {
        match self.role {
            Role::Client => KeyUsage::server_auth(),
            Role::Server => KeyUsage::client_auth(),
        }
    }

    /// The same as the last part of its OID (RFC 5280, section 4.2.1.12).
    fn use_of_key(&self) -> u8 {
        match self.role {
            Role::Client => 1,
            Role::Server => 2,
        }
    }

    /// Built anew, since rustls does not keep it.
    pub fn verified_chain(&self, chain: &[CertificateDer<'_>]) -> Option<Vec<Certificate>> {
        let (end_entity, intermediates) = chain.split_first()?;
        if self.accept_invalid_certs {
            return None;
        }
        if self.is_root(end_entity) {
            return Some(vec![Certificate::from_library(end_entity.to_vec())]);
        }
        let found = |path: &VerifiedPath<'_>| {
            let inner = std::iter::once(end_entity.to_vec())
                .chain(path.intermediate_certificates().map(|certificate| certificate.der().to_vec()));
            let root = self.roots.roots.iter().zip(&self.root_certificates).find(|(root, _)| *root == path.anchor());
            let root = root.map(|(_, certificate)| certificate.to_vec());
            inner.chain(root).map(Certificate::from_library).collect()
        };
        self.path(end_entity, intermediates, &|_| true, found)
    }

    /// What is asked on top of the usual checks.
    fn check_own_rules(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: Option<&str>,
    ) -> Result<(), rustls::Error> {
        if !self.pins.is_empty() && !self.is_pinned(end_entity, intermediates) {
            return Err(refusal("none of the pinned keys is in its chain"));
        }
        if let Some(verify) = &self.verify {
            let chain = certificates(end_entity, intermediates);
            verify.verdict(&PeerCertificates { chain: &chain, server_name }).map_err(|why| refusal(&why))?;
        }
        Ok(())
    }

    fn is_pinned(&self, end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> bool {
        let fits = |key: &[u8]| self.pins.contains(&Sha256::digest(key).into());
        let anchor = |root: &TrustAnchor<'_>| der::encode(der::SEQUENCE, &[&root.subject_public_key_info]);
        if self.accept_invalid_certs || self.is_root(end_entity) {
            return EndEntityCert::try_from(end_entity).is_ok_and(|leaf| fits(&leaf.subject_public_key_info()));
        }
        let accept = |path: &VerifiedPath<'_>| {
            fits(&path.end_entity().subject_public_key_info())
                || path.intermediate_certificates().any(|inner| fits(&inner.subject_public_key_info()))
                || fits(&anchor(path.anchor()))
        };
        self.path(end_entity, intermediates, &accept, |_| ()).is_some()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        note_judged(end_entity, intermediates);
        if !self.accept_invalid_certs {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let usual = verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &self.roots,
                intermediates,
                now,
                self.algorithms.all,
            );
            self.allow_root(end_entity, now, usual)?;
            if !self.accept_invalid_hostnames {
                verify_server_name(&certificate, server_name)?;
            }
        }
        self.check_revocation(end_entity, intermediates, now)?;
        self.check_own_rules(end_entity, intermediates, Some(&server_name.to_str()))?;
        if !ocsp_response.is_empty() {
            note(|notes| notes.ocsp_response = Some(ocsp_response.to_vec()));
        }
        note(|notes| notes.judged = None);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        note_judged(end_entity, intermediates);
        if let Some(clients) = &self.clients {
            let usual = clients.verify_client_cert(end_entity, intermediates, now);
            self.allow_root(end_entity, now, usual.map(drop))?;
        }
        self.check_revocation(end_entity, intermediates, now)?;
        self.check_own_rules(end_entity, intermediates, None)?;
        note(|notes| notes.judged = None);
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }

    fn offer_client_auth(&self) -> bool {
        self.client_auth != ClientAuth::None
    }

    fn client_auth_mandatory(&self) -> bool {
        self.client_auth == ClientAuth::Require
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("role", &self.role).finish_non_exhaustive()
    }
}

fn certificates(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Vec<Certificate> {
    let all = std::iter::once(end_entity).chain(intermediates);
    all.map(|der| Certificate::from_library(der.to_vec())).collect()
}

fn note_judged(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) {
    note(|notes| notes.judged = Some(certificates(end_entity, intermediates)));
}

fn refusal(why: &str) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(Refusal(why.to_string())))).into()
}

/// Why a peer that passed the usual checks is refused all the same.
#[derive(Debug)]
pub(super) struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}
