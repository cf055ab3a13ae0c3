//! What is known of the products that issue tokens, so that an operator need not write it down.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::auth::{Discovery, IssuerConfig, IssuerProblem, OneOrMany};

/// A product whose tokens are known. It fills in what an issuer's entry leaves out; [`PRESETS`] says what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Auth0, both of its access token profiles.
    Auth0,
    /// Microsoft Entra ID, tokens of version 2.
    Entra,
    /// Microsoft Entra ID, tokens of version 1: what an API gets that never asked for version 2.
    EntraV1,
    /// Keycloak.
    Keycloak,
    /// Okta, a custom authorization server.
    Okta,
    /// Amazon Cognito user pools.
    Cognito,
    /// Google; its ID tokens only, and only with `accept_id_tokens = true`.
    Google,
}

/// What a preset fills in. A setting of the entry itself always wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresetFacts {
    /// Which one.
    pub preset: Preset,
    /// Its name in the configuration.
    pub name: &'static str,
    /// What an `issuer` of this product looks like.
    pub issuer: &'static str,
    /// What goes into `audiences`.
    pub audiences: &'static str,
    /// `audience_claim`.
    pub audience_claim: &'static str,
    /// `subject_claim`.
    pub subject_claim: &'static str,
    /// `token_id_claim`.
    pub token_id_claim: &'static str,
    /// `client_claim`; `None` for the usual search.
    pub client_claim: Option<&'static str>,
    /// `tenant_claim`; `None` for each subject on its own.
    pub tenant_claim: Option<&'static str>,
    /// `scope_claims`.
    pub scope_claims: &'static [&'static str],
    /// `token_types`.
    pub token_types: &'static [&'static str],
    /// `required_claims`.
    pub required_claims: &'static [(&'static str, &'static str)],
    /// Claims that its access tokens have and its ID tokens lack; a token without them is refused as of another type.
    pub access_token_claims: &'static [&'static str],
    /// `max_lifetime_s`.
    pub max_lifetime_s: u64,
    /// What to know before using it.
    pub remark: &'static str,
}

impl Preset {
    /// What it fills in.
    pub fn facts(self) -> &'static PresetFacts {
        PRESETS
            .iter()
            .find(|facts| facts.preset == self)
            .expect("the table has a row for each preset. This is a bug.")
    }

    pub(super) fn is_entra(self) -> bool {
        matches!(self, Self::Entra | Self::EntraV1)
    }

    /// `config` with everything filled in that it leaves out.
    ///
    /// # Errors
    /// What this product cannot be used with.
    pub(super) fn fill(self, config: &IssuerConfig) -> Result<IssuerConfig, IssuerProblem> {
        let facts = self.facts();
        if self == Self::Google && !config.accept_id_tokens {
            return Err(IssuerProblem::OnlyIdTokens);
        }
        // Names that somebody else may carry tomorrow.
        if self.is_entra()
            && let Some(name) = config.subject_claim.as_deref()
            && ["email", "upn", "preferred_username", "unique_name"].contains(&name)
        {
            return Err(IssuerProblem::ReassignableSubject {
                claim: name.to_owned(),
            });
        }
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let mut filled = config.clone();
        let text = |field: &mut Option<String>, name: &str| {
            field.get_or_insert_with(|| name.to_owned());
        };
        text(&mut filled.audience_claim, facts.audience_claim);
        text(&mut filled.subject_claim, facts.subject_claim);
        text(&mut filled.token_id_claim, facts.token_id_claim);
        if let Some(name) = facts.client_claim {
            text(&mut filled.client_claim, name);
        }
        if let Some(name) = facts.tenant_claim {
            text(&mut filled.tenant_claim, name);
        }
        filled
            .scope_claims
            .get_or_insert_with(|| owned(facts.scope_claims));
        filled
            .token_types
            .get_or_insert_with(|| owned(facts.token_types));
        filled.max_lifetime_s.get_or_insert(facts.max_lifetime_s);
        if config.keys.is_empty() {
            filled
                .algorithms
                .get_or_insert_with(|| vec!["RS256".to_owned()]);
        }
        let mut required: BTreeMap<String, OneOrMany> = facts
            .required_claims
            .iter()
            .map(|&(name, value)| (name.to_owned(), OneOrMany::One(value.to_owned())))
            .collect();
        required.extend(filled.required_claims);
        filled.required_claims = required;
        if filled.keys.is_empty() && filled.jwks_url.is_none() && filled.discovery.is_none() {
            filled.discovery = Some(Discovery::Usual(true));
        }
        Ok(filled)
    }
}

/// The usual place of an issuer's discovery document; `None` where the issuer is a template of an unknown product.
pub(super) fn discovery_url(preset: Option<Preset>, issuer: &str) -> Option<String> {
    let mut base = issuer.to_owned();
    if preset.is_some_and(Preset::is_entra) {
        // Of all tenants together: that document names the issuer as the same template.
        base = base.replace(TEMPLATE, "common");
        // Tokens of version 1 are named after a host that publishes nothing itself.
        base = base.replace(
            "https://sts.windows.net/",
            "https://login.microsoftonline.com/",
        );
    }
    let base = base.trim_end_matches('/');
    (!base.contains(TEMPLATE)).then(|| format!("{base}/.well-known/openid-configuration"))
}

/// The first segment of a URL's path.
pub(super) fn first_segment(url: &str) -> &str {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    after_scheme.split('/').nth(1).unwrap_or("")
}

/// Stands in an issuer for the id of a tenant.
pub(super) const TEMPLATE: &str = "{tenantid}";

const DAY_S: u64 = 24 * 3600;

/// RFC 9068, and the `JWT` of everybody who came before it.
const USUAL_TYPES: &[&str] = &["absent", "JWT", "at+jwt"];

/// The known products, in the order of their names.
pub const PRESETS: [PresetFacts; 7] = [
    PresetFacts {
        preset: Preset::Auth0,
        name: "auth0",
        issuer: "https://TENANT.auth0.com/",
        audiences: "the API's identifier",
        audience_claim: "aud",
        subject_claim: "sub",
        token_id_claim: "jti",
        client_claim: None,
        tenant_claim: None,
        scope_claims: &["scope", "permissions"],
        token_types: USUAL_TYPES,
        required_claims: &[],
        access_token_claims: &[],
        max_lifetime_s: DAY_S,
        remark: "The issuer ends in a slash. With role-based access the array `permissions` grants too.",
    },
    PresetFacts {
        preset: Preset::Cognito,
        name: "cognito",
        issuer: "https://cognito-idp.REGION.amazonaws.com/POOL",
        audiences: "ids of the app clients that may call",
        audience_claim: "client_id",
        subject_claim: "sub",
        token_id_claim: "jti",
        client_claim: Some("client_id"),
        tenant_claim: None,
        scope_claims: &["scope"],
        token_types: USUAL_TYPES,
        required_claims: &[("token_use", "access")],
        access_token_claims: &[],
        max_lifetime_s: DAY_S,
        remark: "Its access tokens have no `aud`. Custom scopes begin with their resource server: set scope_prefix.",
    },
    PresetFacts {
        preset: Preset::Entra,
        name: "entra",
        issuer: "https://login.microsoftonline.com/TENANT-ID/v2.0",
        audiences: "the API's application (client) id",
        audience_claim: "aud",
        subject_claim: "oid",
        token_id_claim: "uti",
        client_claim: Some("azp"),
        tenant_claim: Some("tid"),
        scope_claims: &["scp", "roles"],
        token_types: USUAL_TYPES,
        required_claims: &[("ver", "2.0")],
        access_token_claims: &["azp"],
        max_lifetime_s: 28 * 3600,
        remark: "Write {tenantid} for the tenant and list `tenants` to let several in. Tokens under continuous access \
                 evaluation live up to 28 h. `oid` is the same person in every application; `sub` is not.",
    },
    PresetFacts {
        preset: Preset::EntraV1,
        name: "entra-v1",
        issuer: "https://sts.windows.net/TENANT-ID/",
        audiences: "the API's App ID URI (api://…) and its application (client) id",
        audience_claim: "aud",
        subject_claim: "oid",
        token_id_claim: "uti",
        client_claim: Some("appid"),
        tenant_claim: Some("tid"),
        scope_claims: &["scp", "roles"],
        token_types: USUAL_TYPES,
        required_claims: &[("ver", "1.0")],
        access_token_claims: &["appid"],
        max_lifetime_s: 28 * 3600,
        remark: "What an API gets by default: its manifest's accessTokenAcceptedVersion is null or 1. The issuer ends \
                 in a slash.",
    },
    PresetFacts {
        preset: Preset::Google,
        name: "google",
        issuer: "https://accounts.google.com",
        audiences: "the OAuth client's id",
        audience_claim: "aud",
        subject_claim: "sub",
        token_id_claim: "jti",
        client_claim: Some("azp"),
        tenant_claim: Some("hd"),
        scope_claims: &["scope"],
        token_types: USUAL_TYPES,
        required_claims: &[],
        access_token_claims: &[],
        max_lifetime_s: DAY_S,
        remark: "Access tokens are opaque, so accept_id_tokens must be true; anybody with an account gets an ID token, \
                 so require `hd` or a subject. ID tokens carry no scopes: set default_scopes.",
    },
    PresetFacts {
        preset: Preset::Keycloak,
        name: "keycloak",
        issuer: "https://HOST/realms/REALM",
        audiences: "what an audience mapper of the client puts into `aud`",
        audience_claim: "aud",
        subject_claim: "sub",
        token_id_claim: "jti",
        client_claim: Some("azp"),
        tenant_claim: None,
        scope_claims: &["scope"],
        token_types: USUAL_TYPES,
        required_claims: &[("typ", "Bearer")],
        access_token_claims: &[],
        max_lifetime_s: DAY_S,
        remark: "Without an audience mapper `aud` is `account` or missing. Roles grant with \
                 scope_claims = [\"scope\", \"/realm_access/roles\"].",
    },
    PresetFacts {
        preset: Preset::Okta,
        name: "okta",
        issuer: "https://ORG.okta.com/oauth2/SERVER-ID",
        audiences: "the audience of the custom authorization server",
        audience_claim: "aud",
        subject_claim: "sub",
        token_id_claim: "jti",
        client_claim: Some("cid"),
        tenant_claim: None,
        scope_claims: &["scp"],
        token_types: USUAL_TYPES,
        required_claims: &[],
        access_token_claims: &["cid"],
        max_lifetime_s: DAY_S,
        remark: "Tokens of the organisation's own server are for Okta alone; make a custom one.",
    },
];
