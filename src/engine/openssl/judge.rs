//! What is asked about a peer's certificate beyond OpenSSL's own check: revocation lists, pins, and the user's closure.

use std::cell::RefCell;
use std::sync::{Mutex, OnceLock, PoisonError};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::sha::sha256;
use openssl::ssl::{Ssl, SslContextBuilder, SslRef, SslVerifyMode};
use openssl::stack::StackRef;
use openssl::x509::{CrlStatus, X509Crl, X509StoreContext, X509StoreContextRef, X509VerifyResult, X509};

use super::setup_error;
use crate::certificate::Certificate;
use crate::der;
use crate::error::Error;
use crate::revocation::RevocationList;
use crate::settings::{PeerCertificates, Settings, Verify};

thread_local! {
    /// What the peer had sent that was refused in the call at hand. OpenSSL itself keeps it for clients only, and not always.
    static REFUSED: RefCell<Vec<Certificate>> = const { RefCell::new(Vec::new()) };
}

/// As a callback of OpenSSL: leaves its verdict as it is.
pub(super) fn listen(ok: bool, store: &mut X509StoreContextRef) -> bool {
    if !ok {
        let ssl = X509StoreContext::ssl_idx().ok().and_then(|index| store.ex_data(index));
        let sent = ssl.and_then(SslRef::peer_cert_chain).filter(|sent| !sent.is_empty());
        let chain = sent.or_else(|| store.chain());
        let chain = chain.into_iter().flatten().filter_map(super::certificate).collect();
        // A thread that is ending notes nothing more.
        let _ = REFUSED.try_with(|refused| refused.replace(chain));
    }
    ok
}

/// The certificates that were refused in the call that has just failed, the peer's own first.
pub(super) fn refused(ssl: &SslRef) -> Vec<Certificate> {
    let noted = REFUSED.try_with(RefCell::take).unwrap_or_default();
    match noted.is_empty() {
        // A context that was made elsewhere.
        true => ssl.peer_cert_chain().into_iter().flatten().filter_map(super::certificate).collect(),
        false => noted,
    }
}

/// One for each context where something is to be asked.
pub(super) struct Judge {
    lists: Vec<X509Crl>,
    pins: Vec<[u8; 32]>,
    verify: Option<Verify>,
    /// OpenSSL's own check does not count.
    accepts_all: bool,
}

/// What has come of it, for one connection.
pub(super) struct Judgement {
    /// Whom a client expects.
    server_name: Option<String>,
    /// Why the peer was refused, once it has been judged.
    verdict: Mutex<Option<Result<(), Refusal>>>,
}

enum Refusal {
    /// OpenSSL has a number and an alert for it.
    Revoked,
    Other(String),
}

impl From<String> for Refusal {
    fn from(why: String) -> Refusal {
        Refusal::Other(why)
    }
}

impl Judgement {
    pub fn of(server_name: Option<&str>) -> Judgement {
        Judgement { server_name: server_name.map(str::to_string), verdict: Mutex::new(None) }
    }

    /// Where a connection has it.
    pub fn index() -> Result<Index<Ssl, Judgement>, ErrorStack> {
        static INDEX: OnceLock<Index<Ssl, Judgement>> = OnceLock::new();
        super::index(&INDEX)
    }

    /// Why the peer was refused, if it was, and OpenSSL's own result does not say it.
    pub fn refusal(ssl: &SslRef) -> Option<String> {
        let judgement = ssl.ex_data(Judgement::index().ok()?)?;
        let verdict = judgement.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        match verdict.as_ref()? {
            Err(Refusal::Other(why)) => Some(why.clone()),
            Ok(()) | Err(Refusal::Revoked) => None,
        }
    }
}

impl Judge {
    /// `None` if there is nothing to ask.
    pub fn new(settings: &Settings) -> Result<Option<Judge>, Error> {
        if !settings.judges_peers() {
            return Ok(None);
        }
        let parse = |list: &RevocationList| X509Crl::from_der(&list.der).map_err(|e| setup_error(&list.origin, e));
        Ok(Some(Judge {
            lists: settings.crls.iter().map(parse).collect::<Result<_, _>>()?,
            pins: settings.pins.clone(),
            verify: settings.verify.clone(),
            accepts_all: settings.accept_invalid_certs,
        }))
    }

    pub fn sit(self, context: &mut SslContextBuilder, mode: SslVerifyMode) {
        context.set_verify_callback(mode, move |ok, store| self.hear(ok, store));
    }

    /// OpenSSL calls for each objection, and, when it has none left, for each certificate, the peer's own last. (It looks at
    /// name constraints later still, and may yet refuse for these.)
    fn hear(&self, ok: bool, store: &mut X509StoreContextRef) -> bool {
        let is_last = ok && store.error_depth() == 0;
        if !is_last && !self.accepts_all {
            return listen(ok, store);
        }
        let result = self.judge_once(store).unwrap_or(X509VerifyResult::APPLICATION_VERIFICATION);
        store.set_error(result);
        result == X509VerifyResult::OK
    }

    /// `None` if it can't be judged, which is no case that OpenSSL knows of.
    fn judge_once(&self, store: &X509StoreContextRef) -> Option<X509VerifyResult> {
        let ssl = store.ex_data(X509StoreContext::ssl_idx().ok()?)?;
        let judgement = ssl.ex_data(Judgement::index().ok()?)?;
        let mut verdict = judgement.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        if verdict.is_none() {
            *verdict = Some(self.judge(store.chain()?, ssl, judgement.server_name.as_deref()));
        }
        verdict.as_ref().map(|verdict| match verdict {
            Ok(()) => X509VerifyResult::OK,
            Err(Refusal::Revoked) => revoked(),
            Err(Refusal::Other(_)) => X509VerifyResult::APPLICATION_VERIFICATION,
        })
    }

    /// `chain`: what OpenSSL made of the certificates that the peer sent and of those it trusts.
    fn judge(&self, chain: &StackRef<X509>, ssl: &SslRef, server_name: Option<&str>) -> Result<(), Refusal> {
        if !self.accepts_all {
            self.check_revocation(chain)?;
        }
        if !self.pins.is_empty() {
            let counted = if self.accepts_all { 1 } else { chain.len() };
            let is_pinned = |certificate: &openssl::x509::X509Ref| {
                let der = certificate.to_der().unwrap_or_default();
                der::public_key_info(&der).is_some_and(|key| self.pins.contains(&sha256(key)))
            };
            if !chain.iter().take(counted).any(is_pinned) {
                return Err("none of the pinned keys is in its chain".to_string().into());
            }
        }
        let Some(verify) = &self.verify else { return Ok(()) };
        // A server does not have what was sent yet.
        let sent = ssl.peer_cert_chain().filter(|sent| !sent.is_empty()).unwrap_or(chain);
        let sent: Vec<Certificate> = sent.iter().filter_map(super::certificate).collect();
        if sent.is_empty() {
            return Err("its certificate cannot be read".to_string().into());
        }
        let peer = PeerCertificates { chain: &sent, server_name };
        Ok(verify.verdict(&peer)?)
    }

    /// OpenSSL's own check of lists demands one of each issuer, takes the newest only, and refuses those past their date.
    fn check_revocation(&self, chain: &StackRef<X509>) -> Result<(), Refusal> {
        if self.lists.is_empty() {
            return Ok(());
        }
        for (certificate, issuer) in chain.iter().zip(chain.iter().skip(1)) {
            let of_issuer = |list: &&X509Crl| {
                list.issuer_name().try_cmp(certificate.issuer_name()).is_ok_and(|order| order.is_eq())
            };
            let mut of_issuer = self.lists.iter().filter(of_issuer).peekable();
            if of_issuer.peek().is_none() {
                continue;
            }
            let key = issuer.public_key().map_err(|e| format!("its issuer's key cannot be read: {e}"))?;
            // An issuer may have had another key, and lists that it signed with that.
            let mut signed = of_issuer.filter(|list| list.verify(&key).unwrap_or(false)).peekable();
            if signed.peek().is_none() {
                return Err("its issuer's revocation list has no good signature".to_string().into());
            }
            if signed.any(|list| matches!(list.get_by_serial(certificate.serial_number()), CrlStatus::Revoked(_))) {
                return Err(Refusal::Revoked);
            }
        }
        Ok(())
    }
}

/// X509_V_ERR_CERT_REVOKED, of which OpenSSL makes the alert.
#[allow(unsafe_code, reason = "the openssl crate has no constant for it")]
fn revoked() -> X509VerifyResult {
    // SAFETY: the number must be one that OpenSSL has words for, as this is since ever.
    unsafe { X509VerifyResult::from_raw(23) }
}
