//! Reads public keys in PEM, by exact encodings rather than by a general ASN.1 parser.
//!
//! An elliptic-curve key in DER is a fixed prefix and the point, so comparing the prefix is the whole parser. Only RSA,
//! whose two numbers vary in length, needs to read lengths.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Curve, Material};
use crate::auth::KeyError;

/// A public key from PEM text with exactly one block.
pub(in crate::auth) fn public_key(text: &str) -> Result<Material, KeyError> {
    let (label, der) = decode(text)?;
    match label {
        "PUBLIC KEY" => from_spki(&der),
        "RSA PUBLIC KEY" => from_rsa_public_key(&der),
        label if label.ends_with("PRIVATE KEY") => Err(KeyError::PrivateKey),
        label => Err(KeyError::WrongLabel {
            label: label.chars().take(40).collect(),
        }),
    }
}

/// The label and bytes of the only PEM block in `text`.
pub(in crate::auth) fn decode(text: &str) -> Result<(&str, Vec<u8>), KeyError> {
    let (_, rest) = text.split_once("-----BEGIN ").ok_or(KeyError::NotPem)?;
    let (label, rest) = rest.split_once("-----").ok_or(KeyError::NotPem)?;
    let (body, rest) = rest.split_once("-----END ").ok_or(KeyError::NotPem)?;
    let after = rest
        .strip_prefix(label)
        .and_then(|rest| rest.strip_prefix("-----"))
        .ok_or(KeyError::NotPem)?;
    if after.contains("-----BEGIN ") {
        return Err(KeyError::SeveralPemBlocks);
    }
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(body).map_err(|_| KeyError::NotPem)?;
    Ok((label, der))
}

/// One PEM block with lines of 64 characters (RFC 7468).
pub(in crate::auth) fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII, so any place is a character boundary.
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// SubjectPublicKeyInfo, RFC 5280.
fn from_spki(der: &[u8]) -> Result<Material, KeyError> {
    for (prefix, key_len, curve) in FIXED_SPKI {
        if let Some(key) = der.strip_prefix(prefix) {
            return if key.len() == key_len {
                Material::curve(curve, key)
            } else {
                Err(KeyError::UnknownEncoding)
            };
        }
    }
    let rsa = || {
        let mut outer = Der(der).only(SEQUENCE)?;
        if outer.take(SEQUENCE)?.0 != RSA_ALGORITHM {
            return None;
        }
        // The first byte counts unused bits; keys are whole bytes.
        outer.only(BIT_STRING)?.0.strip_prefix(&[0])
    };
    from_rsa_public_key(rsa().ok_or(KeyError::UnknownEncoding)?)
}

/// RSAPublicKey, RFC 8017: two integers.
fn from_rsa_public_key(der: &[u8]) -> Result<Material, KeyError> {
    let numbers = || {
        let mut numbers = Der(der).only(SEQUENCE)?;
        let modulus = numbers.positive()?;
        let exponent = numbers.positive()?;
        numbers.0.is_empty().then_some((modulus, exponent))
    };
    let (modulus, exponent) = numbers().ok_or(KeyError::UnknownEncoding)?;
    Material::rsa(modulus, exponent)
}

/// Bytes of DER still to be read.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The contents of the next element, which must have this tag; minimal lengths only.
    fn take(&mut self, tag: u8) -> Option<Der<'a>> {
        let rest = self.0.strip_prefix(&[tag])?;
        let (len, rest) = match *rest {
            [len @ 0..=0x7f, ref rest @ ..] => (usize::from(len), rest),
            [0x81, len @ 0x80..=0xff, ref rest @ ..] => (usize::from(len), rest),
            [0x82, high @ 1..=0xff, low, ref rest @ ..] => {
                (usize::from(high) << 8 | usize::from(low), rest)
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some(Der(contents))
    }

    /// As [`Der::take`], and nothing may follow.
    fn only(&mut self, tag: u8) -> Option<Der<'a>> {
        let contents = self.take(tag)?;
        self.0.is_empty().then_some(contents)
    }

    /// A positive integer without its sign byte.
    fn positive(&mut self) -> Option<&'a [u8]> {
        match self.take(INTEGER)?.0 {
            [0, rest @ ..] if rest.first().is_some_and(|&first| first >= 0x80) => Some(rest),
            number @ [1..=0x7f, ..] => Some(number),
            _ => None,
        }
    }
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// rsaEncryption (1.2.840.113549.1.1.1) with NULL parameters, RFC 3279.
const RSA_ALGORITHM: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];

/// Everything before the key of the curves that are taken: (prefix, length of the key after it, curve).
/// EC points are uncompressed (RFC 5480), Ed25519 keys raw (RFC 8410).
const FIXED_SPKI: [(&[u8], usize, Curve); 3] = [
    (
        &[
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ],
        65,
        Curve::P256,
    ),
    (
        &[
            0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x05, 0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
        ],
        97,
        Curve::P384,
    ),
    (
        &[
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ],
        32,
        Curve::Ed25519,
    ),
];
