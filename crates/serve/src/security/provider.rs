//! Signatures of tokens, checked by `ring`, which TLS has brought already.

use std::sync::Once;

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
};
use ring::signature::{
    self as ring_signature, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

/// The algorithms that are taken: public keys only. A token cannot ask for a weaker one.
pub(super) const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Makes this what `jsonwebtoken` checks signatures by, unless the process has chosen something else.
pub(super) fn install() {
    static PROVIDER: std::sync::OnceLock<CryptoProvider> = std::sync::OnceLock::new();
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let provider = PROVIDER.get_or_init(|| CryptoProvider {
            signer_factory: signer,
            verifier_factory: verifier,
            key_utils: KeyUtils::new_unimplemented(),
        });
        // The application's own choice stands.
        let _ = provider.install_default();
    });
}

fn signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let check = match (algorithm, key.kind()) {
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => {
            Check::Point(&ring_signature::ECDSA_P256_SHA256_FIXED, point.clone())
        }
        (Algorithm::ES384, DecodingKeyKind::SecretOrDer(point)) => {
            Check::Point(&ring_signature::ECDSA_P384_SHA384_FIXED, point.clone())
        }
        (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(point)) => {
            Check::Point(&ring_signature::ED25519, point.clone())
        }
        (algorithm, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            Check::Rsa(rsa(*algorithm).ok_or(ErrorKind::InvalidAlgorithm)?, n.clone(), e.clone())
        }
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    };
    Ok(Box::new(Verifier { algorithm: *algorithm, check }))
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &ring_signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &ring_signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &ring_signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &ring_signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &ring_signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &ring_signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

struct Verifier {
    algorithm: Algorithm,
    check: Check,
}

enum Check {
    Rsa(&'static RsaParameters, Vec<u8>, Vec<u8>),
    Point(&'static dyn VerificationAlgorithm, Vec<u8>),
}

impl signature::Verifier<Vec<u8>> for Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match &self.check {
            Check::Rsa(parameters, n, e) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            Check::Point(algorithm, point) => {
                UnparsedPublicKey::new(*algorithm, point).verify(message, signature)
            }
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
