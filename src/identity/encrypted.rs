//! Private keys that take a password.

use zeroize::Zeroizing;

use crate::error::Error;

/// Why a key could not be decrypted, for behind its file and block.
pub(super) enum Failure {
    WrongPassword,
    /// In an encryption that the library does not have.
    Unreadable(String),
    /// It takes another library.
    #[allow(dead_code, reason = "without OpenSSL")]
    NeedsOpenSsl,
}

impl Failure {
    pub fn tell(self, origin: &str, block: &str) -> Error {
        const CONVERT: &str = "convert it: openssl pkcs8 -topk8 -v2 aes-256-cbc";
        let place = format!("{origin}, {block}");
        match self {
            Failure::WrongPassword => {
                Error::invalid_input(format!("{place}: the key cannot be decrypted with this password"))
            }
            Failure::Unreadable(why) => {
                Error::invalid_input(format!("{place}: the key's encryption cannot be read ({why}); {CONVERT}"))
            }
            Failure::NeedsOpenSsl => {
                Error::unsupported(format!("{place}: a key in this older encryption needs OpenSSL; {CONVERT}"))
            }
        }
    }
}

/// What a block holds, as unencrypted PKCS#8.
pub(super) type Decrypted = Result<Zeroizing<Vec<u8>>, Failure>;

pub(super) use library::{pkcs8, traditional};

/// Where `native-tls` is OpenSSL, the `openssl` crate is there with it.
#[cfg(all(any(feature = "openssl", feature = "native-tls"), not(any(windows, target_vendor = "apple"))))]
mod library {
    use openssl::error::ErrorStack;
    use openssl::pkey::{PKey, Private};
    use zeroize::Zeroizing;

    use super::{Decrypted, Failure};

    /// A PKCS#8 `EncryptedPrivateKeyInfo` (RFC 5958, section 3), in DER.
    pub fn pkcs8(der: &[u8], password: &str) -> Decrypted {
        read(password, |ask| PKey::private_key_from_pkcs8_callback(der, ask))
    }

    /// The form of OpenSSL before PKCS#8, with its headers (RFC 1421, section 4.6).
    pub fn traditional(block: &pem::Pem, password: &str) -> Decrypted {
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let text = pem::encode_config(block, config);
        read(password, |ask| PKey::private_key_from_pem_callback(text.as_bytes(), ask))
    }

    type Ask<'a> = Box<dyn FnOnce(&mut [u8]) -> Result<usize, ErrorStack> + 'a>;

    /// The crate's functions that take the password itself panic when it has a NUL, and cut a long one.
    fn read(password: &str, read: impl FnOnce(Ask<'_>) -> Result<PKey<Private>, ErrorStack>) -> Decrypted {
        let ask = |room: &mut [u8]| {
            let room = room.get_mut(..password.len()).ok_or_else(ErrorStack::get)?;
            room.copy_from_slice(password.as_bytes());
            Ok(password.len())
        };
        let key = read(Box::new(ask)).map_err(failure)?;
        key.private_key_to_pkcs8().map(Zeroizing::new).map_err(failure)
    }

    fn failure(stack: ErrorStack) -> Failure {
        let reasons: Vec<_> = stack.errors().iter().filter_map(|e| Some((e.reason()?, e.data()))).collect();
        let unsupported = reasons.iter().find(|(reason, _)| {
            let reason = reason.to_ascii_lowercase();
            reason.contains("unsupported") || reason.contains("unknown pbe") || reason.contains("unknown cipher")
        });
        match unsupported {
            Some((reason, Some(data))) => Failure::Unreadable(format!("{reason}: {data}")),
            Some((reason, None)) => Failure::Unreadable(reason.to_string()),
            None => Failure::WrongPassword,
        }
    }
}

#[cfg(not(all(any(feature = "openssl", feature = "native-tls"), not(any(windows, target_vendor = "apple")))))]
mod library {
    use pkcs8::pkcs5::pbes2::Kdf;
    use pkcs8::pkcs5::EncryptionScheme;
    use pkcs8::EncryptedPrivateKeyInfoRef;
    use zeroize::Zeroizing;

    use super::{Decrypted, Failure};
    use crate::der;

    /// What scrypt may take, as with OpenSSL: a file says how much it needs.
    const MEMORY: u64 = 32 << 20;

    /// A PKCS#8 `EncryptedPrivateKeyInfo` (RFC 5958, section 3), in DER.
    pub fn pkcs8(key: &[u8], password: &str) -> Decrypted {
        let unreadable = |why: &dyn std::fmt::Display| Failure::Unreadable(why.to_string());
        let key = EncryptedPrivateKeyInfoRef::try_from(key).map_err(|e| unreadable(&e))?;
        if let EncryptionScheme::Pbes2(parameters) = &key.encryption_algorithm {
            if let Kdf::Scrypt(scrypt) = &parameters.kdf {
                let blocks = scrypt.cost_parameter.saturating_add(u64::from(scrypt.parallelization));
                let needed = blocks.saturating_mul(128 * u64::from(scrypt.block_size));
                if needed > MEMORY {
                    return Err(Failure::Unreadable(format!("scrypt would need {needed} bytes of memory")));
                }
                // The crate takes its logarithm.
                if scrypt.cost_parameter == 0 {
                    return Err(Failure::Unreadable("scrypt with a cost of 0".to_string()));
                }
            }
        }
        match key.encryption_algorithm.decrypt(password, key.encrypted_data.as_bytes()) {
            // Where the padding looks right by chance.
            Ok(plain) => Some(Zeroizing::new(plain))
                .filter(|plain| matches!(der::element(plain), Some((der::SEQUENCE, _, []))))
                .ok_or(Failure::WrongPassword),
            Err(pkcs8::pkcs5::Error::DecryptFailed) => Err(Failure::WrongPassword),
            Err(e) => Err(unreadable(&e)),
        }
    }

    pub fn traditional(_: &pem::Pem, _: &str) -> Decrypted {
        Err(Failure::NeedsOpenSsl)
    }
}
