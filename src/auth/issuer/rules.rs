//! What an issuer's entry says of its tokens' claims, judged.

use std::sync::Arc;

use super::preset::TEMPLATE;
use crate::auth::token::claims::{ABSENT, ClaimRules, is_plain};
use crate::auth::token::time::TimeRules;
use crate::auth::{CERTIFICATES_ISSUER, IssuerConfig, IssuerProblem, KEYS_ISSUER};

/// Judges everything but the keys. The result is for the issuer as written, template or not.
pub(super) fn rules(config: &IssuerConfig) -> Result<ClaimRules, IssuerProblem> {
    // Identities, budgets and revocations go by the issuer's name: nobody else may be one of ours.
    if [KEYS_ISSUER, CERTIFICATES_ISSUER].contains(&&*config.issuer) {
        return Err(IssuerProblem::Reserved);
    }
    let required = config
        .required_claims
        .iter()
        .map(|(name, values)| {
            Ok((
                name.as_str().into(),
                some("required_claims", values.as_slice())?,
            ))
        })
        .collect::<Result<_, _>>()?;
    let or_default = |field, names: Option<&[String]>, default: &[&str]| match names {
        Some(names) => some(field, names),
        None => Ok(default.iter().map(|&name| name.into()).collect()),
    };
    let optional =
        |field, name: &Option<String>| name.as_deref().map(|name| plain(field, name)).transpose();
    let named = |field, name: &Option<String>, default: &str| {
        Ok(optional(field, name)?.unwrap_or_else(|| default.into()))
    };
    let token_types = config.token_types.as_deref();
    // An ID token lacks exactly what marks an access token.
    let present = match config.preset {
        Some(preset) if !config.accept_id_tokens => preset.facts().access_token_claims,
        _ => &[],
    };
    Ok(ClaimRules {
        issuer: Arc::from(&*plain("issuer", &config.issuer)?),
        audience_claim: named("audience_claim", &config.audience_claim, "aud")?,
        audiences: some("audiences", &config.audiences)?,
        token_types: or_default("token_types", token_types, &[ABSENT, "jwt", "at+jwt"])?
            .iter()
            .map(|name| name.to_ascii_lowercase().into())
            .collect(),
        accept_id_tokens: config.accept_id_tokens,
        time: TimeRules {
            skew: range("clock_skew_s", config.clock_skew_s, 0, 300)?,
            max_lifetime: range(
                "max_lifetime_s",
                config.max_lifetime_s.unwrap_or(24 * 3600),
                1,
                MAX_LIFETIME_S,
            )?,
        },
        subject_claim: named("subject_claim", &config.subject_claim, "sub")?,
        token_id_claim: named("token_id_claim", &config.token_id_claim, "jti")?,
        tenant_claim: optional("tenant_claim", &config.tenant_claim)?,
        client_claims: match optional("client_claim", &config.client_claim)? {
            Some(name) => vec![name],
            None => vec!["client_id".into(), "azp".into()],
        },
        scope_claims: or_default(
            "scope_claims",
            config.scope_claims.as_deref(),
            &["scope", "scp"],
        )?,
        scope_prefix: optional("scope_prefix", &config.scope_prefix)?,
        default_scopes: all("default_scopes", &config.default_scopes)?,
        required,
        present: present.iter().map(|&name| name.into()).collect(),
    })
}

/// The `iss` of each set of rules that `config` stands for: one for each tenant of a template, with and without scheme
/// for Google, otherwise one.
pub(super) fn expand(
    config: &IssuerConfig,
    rules: ClaimRules,
) -> Result<Vec<(Arc<str>, ClaimRules)>, IssuerProblem> {
    let of_tenant = |iss: &str, tenant: &str| {
        let mut rules = ClaimRules {
            issuer: iss.into(),
            ..rules.clone()
        };
        rules
            .required
            .push((TENANT_CLAIM.into(), vec![tenant.into()]));
        (rules.issuer.clone(), rules)
    };
    let is_template = config.issuer.contains(TEMPLATE);
    let preset = config.preset;
    if is_template == config.tenants.is_empty() {
        return Err(if is_template {
            IssuerProblem::Empty { field: "tenants" }
        } else {
            IssuerProblem::TenantsWithoutTemplate
        });
    }
    if is_template {
        let mut expanded = Vec::with_capacity(config.tenants.len());
        for (index, tenant) in config.tenants.iter().enumerate() {
            let fits = match preset {
                Some(preset) if preset.is_entra() => is_guid(tenant),
                _ => is_segment(tenant),
            };
            if !fits || config.tenants[..index].contains(tenant) {
                return Err(IssuerProblem::Tenant {
                    given: tenant.clone(),
                });
            }
            expanded.push(of_tenant(&config.issuer.replace(TEMPLATE, tenant), tenant));
        }
        return Ok(expanded);
    }
    if preset.is_some_and(|preset| preset.is_entra()) {
        let tenant = super::preset::first_segment(&config.issuer);
        if !is_guid(tenant) {
            return Err(IssuerProblem::Tenant {
                given: tenant.to_owned(),
            });
        }
        return Ok(vec![of_tenant(&config.issuer, tenant)]);
    }
    let mut expanded = vec![(rules.issuer.clone(), rules.clone())];
    if preset == Some(super::Preset::Google)
        && let Some(bare) = config.issuer.strip_prefix("https://")
    {
        // The same provider by its other name: the identity is the same.
        expanded.push((bare.into(), rules));
    }
    Ok(expanded)
}

/// A tenant id as Entra writes it: 32 lower-case hexadecimal digits with dashes.
fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}

/// Whether `text` can stand in a URL's path without changing what the rest of it means.
fn is_segment(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !text.bytes().all(|byte| byte == b'.')
}

pub(super) fn range(
    field: &'static str,
    given: u64,
    min: u64,
    max: u64,
) -> Result<u64, IssuerProblem> {
    if (min..=max).contains(&given) {
        Ok(given)
    } else {
        Err(IssuerProblem::Range {
            field,
            given,
            min,
            max,
        })
    }
}

fn plain(field: &'static str, name: &str) -> Result<Box<str>, IssuerProblem> {
    if is_plain(name) {
        Ok(name.into())
    } else {
        Err(IssuerProblem::NotPlain { field })
    }
}

fn all(field: &'static str, names: &[String]) -> Result<Vec<Box<str>>, IssuerProblem> {
    if names.iter().all(|name| is_plain(name)) {
        Ok(names.iter().map(|name| name.as_str().into()).collect())
    } else {
        Err(IssuerProblem::NotPlain { field })
    }
}

fn some(field: &'static str, names: &[String]) -> Result<Vec<Box<str>>, IssuerProblem> {
    if names.is_empty() {
        Err(IssuerProblem::Empty { field })
    } else {
        all(field, names)
    }
}

/// The claim that `{tenantid}` stands for.
pub(super) const TENANT_CLAIM: &str = "tid";

/// A year and a day; longer-lived tokens cannot be told from forgotten ones.
const MAX_LIFETIME_S: u64 = 366 * 24 * 3600;
