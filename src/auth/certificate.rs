//! Client certificates: who one stands for, and whether it is the one that a token is bound to (RFC 8705).
//!
//! TLS has verified the chain and that the caller holds the key before anything here runs; what is left is to read
//! names. Nothing here makes a channel safe by itself.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

use super::GateError;
use super::denied::{Denied, Reason};
use super::identity::{Claimed, Credential, Identity};
use super::token::claims::is_plain;

/// The issuer of the identities that client certificates stand for.
pub const CERTIFICATES_ISSUER: &str = "mixgate:mtls";

/// Whether a verified client certificate is a credential, and of whom. TLS decides which authorities are trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CertificateConfig {
    /// Whether a certificate alone says who calls. Otherwise it is the channel of a caller who has a token too.
    pub identify: bool,
    /// What such callers may do.
    pub scopes: Vec<String>,
    /// Where the subject stands; the first that the certificate has counts.
    pub subject: Vec<SubjectName>,
    /// Where the tenant stands. Default: each subject is its own tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantName>,
}

impl Default for CertificateConfig {
    fn default() -> Self {
        Self {
            identify: false,
            scopes: Vec::new(),
            subject: vec![SubjectName::Uri, SubjectName::Dns, SubjectName::Cn],
            tenant: None,
        }
    }
}

/// A name in a certificate that may be its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectName {
    /// A URI among the alternative names, such as a SPIFFE id.
    Uri,
    /// A DNS name among the alternative names.
    Dns,
    /// The common name.
    Cn,
}

/// A name in a certificate that may be its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TenantName {
    /// The organisation.
    O,
    /// The organisational unit.
    Ou,
}

/// How certificates become identities.
#[derive(Debug)]
pub(super) struct Certificates {
    pub identify: bool,
    scopes: Vec<Box<str>>,
    subject: Vec<SubjectName>,
    tenant: Option<TenantName>,
}

impl Certificates {
    /// Judges `config` as a whole.
    pub fn new(config: &CertificateConfig) -> Result<Self, GateError> {
        let fault = |problem| Err(GateError::Certificates { problem });
        if config.subject.is_empty() {
            return fault("`subject` is empty, which would admit nobody");
        }
        if !config
            .scopes
            .iter()
            .all(|scope| is_plain(scope) && !scope.contains(' '))
        {
            return fault("`scopes` has an entry that is not 1 to 256 plain characters");
        }
        Ok(Self {
            identify: config.identify,
            scopes: config.scopes.iter().map(|it| it.as_str().into()).collect(),
            subject: config.subject.clone(),
            tenant: config.tenant,
        })
    }

    /// Whom the certificate stands for, at Unix second `now`.
    ///
    /// # Errors
    /// 401 `invalid_certificate`: a handshake may be older than the end of what it has verified, and names may be
    /// missing, ambiguous or unusable.
    pub fn identity(&self, der: &[u8], now: u64) -> Result<Identity, Denied> {
        let certificate = parse(der)?;
        let validity = certificate.validity();
        let second = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).ok();
        let (from, until) = (second(validity.not_before), second(validity.not_after));
        // The last second belongs to it (RFC 5280 §4.1.2.5).
        if until.is_none_or(|until| until < now) || from.is_some_and(|from| from > now) {
            return Err(refused("the client certificate is out of date"));
        }
        let subject = self.subject(&certificate)?;
        let tenant = self
            .tenant
            .map(|name| only(tenants(&certificate, name), "tenant"))
            .transpose()?
            .flatten();
        let thumbprint = URL_SAFE_NO_PAD.encode(thumbprint(der));
        let mut claims: Map<String, Value> = Map::new();
        claims.insert("iss".into(), CERTIFICATES_ISSUER.into());
        claims.insert("sub".into(), subject.into());
        if let Some(tenant) = tenant {
            claims.insert("tenant".into(), tenant.into());
        }
        claims.insert("scope".into(), self.scopes.join(" ").into());
        claims.insert(THUMBPRINT.into(), thumbprint.as_str().into());
        Ok(Identity::new(Claimed {
            issuer: CERTIFICATES_ISSUER.into(),
            subject: subject.into(),
            tenant: tenant.map(Arc::from),
            client: None,
            // What a revocation of this one certificate names.
            token_id: Some(thumbprint.into()),
            scopes: self.scopes.clone(),
            expires: until.map(|until| until + 1),
            issued: from,
            credential: Credential::Certificate,
            key_id: None,
            claims,
        }))
    }

    fn subject<'a>(&self, certificate: &'a X509Certificate<'_>) -> Result<&'a str, Denied> {
        for &name in &self.subject {
            if let Some(subject) = only(subjects(certificate, name)?, "subject")? {
                return Ok(subject);
            }
        }
        Err(refused("the client certificate has no name that is taken"))
    }
}

/// Whether the caller holds the certificate to which its token is bound, if it is bound.
///
/// # Errors
/// 401 `invalid_token_binding`.
pub(super) fn check_binding(identity: &Identity, certificate: Option<&[u8]>) -> Result<(), Denied> {
    let Some(bound_to) = identity.bound_to() else {
        return Ok(());
    };
    let unproven = |detail| Denied::new(Reason::InvalidTokenBinding, detail);
    let der = certificate.ok_or_else(|| {
        unproven("the token is bound to a client certificate, the connection has none")
    })?;
    verify_slices_are_equal(&thumbprint(der), bound_to)
        .map_err(|_| unproven("the token is bound to another client certificate"))
}

/// The certificate that claims are bound to, if they are bound.
///
/// # Errors
/// 401 `invalid_token_binding`, for another kind of proof than a certificate.
pub(super) fn bound_to(claims: &Map<String, Value>) -> Result<Option<[u8; 32]>, Denied> {
    let Some(confirmation) = claims.get("cnf") else {
        return Ok(None);
    };
    // A second member would be a second proof to ask for; none but this one is understood.
    let stated = confirmation
        .as_object()
        .filter(|members| members.len() == 1)
        .and_then(|members| members.get(THUMBPRINT))
        .and_then(Value::as_str);
    let thumbprint = stated
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .and_then(|bytes| bytes.try_into().ok());
    thumbprint.map(Some).ok_or_else(|| {
        Denied::new(
            Reason::InvalidTokenBinding,
            "the token is bound by a `cnf` that is not one `x5t#S256`, and no other proof is taken",
        )
    })
}

/// SHA-256 of the whole certificate, which RFC 8705 calls `x5t#S256`.
fn thumbprint(der: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, der).as_ref());
    hash
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Denied> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(refused("the client certificate cannot be read")),
    }
}

/// Every name of this kind.
fn subjects<'a>(
    certificate: &'a X509Certificate<'_>,
    name: SubjectName,
) -> Result<Vec<Option<&'a str>>, Denied> {
    if name == SubjectName::Cn {
        return Ok(text(certificate.subject().iter_common_name()));
    }
    let alternative = certificate
        .subject_alternative_name()
        .map_err(|_| refused("the client certificate's alternative names cannot be read"))?;
    let names = alternative.iter().flat_map(|it| &it.value.general_names);
    let wanted = names.filter_map(|general| match (general, name) {
        (GeneralName::URI(uri), SubjectName::Uri) => Some(Some(*uri)),
        (GeneralName::DNSName(dns), SubjectName::Dns) => Some(Some(*dns)),
        // Which name it might have been is not known, so it must not be skipped over.
        (GeneralName::Invalid(..), _) => Some(None),
        _ => None,
    });
    Ok(wanted.collect())
}

fn tenants<'a>(certificate: &'a X509Certificate<'_>, name: TenantName) -> Vec<Option<&'a str>> {
    let subject = certificate.subject();
    match name {
        TenantName::O => text(subject.iter_organization()),
        TenantName::Ou => text(subject.iter_organizational_unit()),
    }
}

/// `None` for each name that is not text.
fn text<'a, 'b: 'a>(
    names: impl Iterator<Item = &'a AttributeTypeAndValue<'b>>,
) -> Vec<Option<&'a str>> {
    names.map(|name| name.as_str().ok()).collect()
}

/// The one name, if there is one. Of several, which one counts would be the certificate's choice.
fn only<'a>(names: Vec<Option<&'a str>>, what: &str) -> Result<Option<&'a str>, Denied> {
    match names[..] {
        [] => Ok(None),
        [Some(name)] if is_plain(name) => Ok(Some(name)),
        [_] => Err(refused(format!(
            "the client certificate's {what} is not 1 to 256 plain characters"
        ))),
        _ => Err(refused(format!(
            "the client certificate has {} names that could be its {what}",
            names.len()
        ))),
    }
}

fn refused(detail: impl Into<String>) -> Denied {
    Denied::new(Reason::InvalidCertificate, detail)
}

const THUMBPRINT: &str = "x5t#S256";
