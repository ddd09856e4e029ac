//! Whether a list says that a certificate in the peer's chain has been revoked.

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::CertificateError;
use webpki::{
    CertRevocationList, EndEntityCert, OwnedCertRevocationList, RevocationOptions, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};

use super::{refusal, Verifier};
use crate::der;
use crate::error::Error;
use crate::settings::Settings;

pub(super) type Lists = Vec<CertRevocationList<'static>>;

pub(super) fn parse(settings: &Settings) -> Result<Lists, Error> {
    let parse = |list: &crate::revocation::RevocationList| {
        let parsed = OwnedCertRevocationList::from_der(&list.der);
        let fail = |e| Error::invalid_input(format!("{}: rustls cannot use it: {e}", list.origin)).with_source(e);
        parsed.map(CertRevocationList::from).map_err(fail)
    };
    settings.crls.iter().map(parse).collect()
}

impl Verifier {
    /// After the usual checks. webpki heeds one list of an issuer, the first.
    pub(super) fn check_revocation(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        // One that is its own root has no issuer who could list it.
        if self.lists.is_empty() || self.accept_invalid_certs || self.is_root(end_entity) {
            return Ok(());
        }
        let issuers: Vec<_> = std::iter::once(end_entity)
            .chain(intermediates)
            .filter_map(|certificate| der::issuer(certificate))
            .collect();
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for list in self.lists.iter().filter(|list| issuers.contains(&list.issuer())) {
            match self.verify_with(end_entity, intermediates, now, &[list]) {
                Ok(()) => good.push(list),
                Err(webpki::Error::CertRevoked) => return Err(CertificateError::Revoked.into()),
                Err(e) => bad.push((list, e)),
            }
        }
        // An issuer may have had another key, and lists that it signed with that.
        let unsigned = bad.iter().find(|(list, _)| good.iter().all(|good| good.issuer() != list.issuer()));
        if let Some((_, e)) = unsigned {
            return Err(refusal(&format!("its issuer's revocation list has no good signature: {e}")));
        }
        // Each by itself may have been passed by on another way to a root.
        match good.len() {
            0 | 1 => Ok(()),
            _ => self.verify_with(end_entity, intermediates, now, &good).map_err(|_| CertificateError::Revoked.into()),
        }
    }

    fn verify_with(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        lists: &[&CertRevocationList<'_>],
    ) -> Result<(), webpki::Error> {
        // Both are what this says: lists of all certificates but the root's, whatever their date.
        let options = RevocationOptionsBuilder::new(lists).map_err(|_| webpki::Error::UnknownRevocationStatus)?;
        let options: RevocationOptions<'_> = options.with_status_policy(UnknownStatusPolicy::Allow).build();
        let (algorithms, roots) = (self.algorithms.all, &self.roots.roots);
        let end_entity = EndEntityCert::try_from(end_entity)?;
        let path =
            end_entity.verify_for_usage(algorithms, roots, intermediates, now, self.usage(), Some(options), None);
        path.map(drop)
    }
}
