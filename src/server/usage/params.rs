//! The query of a usage request, checked.

use crate::ledger::{Dimension, UsageQuery};
use crate::server::ApiError;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Params {
    /// Unix seconds; of this page's first bucket if it is a later one.
    pub(super) start: u64,
    /// Unix seconds, exclusive.
    pub(super) end: u64,
    /// Seconds of a bucket.
    pub(super) width: u64,
    /// Buckets of a page.
    pub(super) limit: u64,
    pub(super) group_by: Vec<Group>,
    pub(super) batch: Option<bool>,
    only: Vec<(Dimension, Vec<String>)>,
}

/// What OpenAI can tell usage apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Project,
    User,
    ApiKey,
    Model,
    Batch,
    ServiceTier,
    ApiSource,
}

impl Group {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "project_id" => Self::Project,
            "user_id" => Self::User,
            "api_key_id" => Self::ApiKey,
            "model" => Self::Model,
            "batch" => Self::Batch,
            "service_tier" => Self::ServiceTier,
            "api_source" => Self::ApiSource,
            _ => return None,
        })
    }

    /// What it is in the ledger; `None` where all requests are alike.
    pub(super) fn dimension(self) -> Option<Dimension> {
        Some(match self {
            Self::Project => Dimension::Tenant,
            Self::User => Dimension::Subject,
            Self::ApiKey => Dimension::ApiKey,
            Self::Model => Dimension::Model,
            Self::Batch | Self::ServiceTier | Self::ApiSource => return None,
        })
    }
}

impl Params {
    /// Understands the decoded pairs of a query. `now` in Unix seconds.
    ///
    /// # Errors
    /// 400 naming the parameter.
    pub(super) fn parse(pairs: &[(String, String)], now: u64) -> Result<Self, ApiError> {
        let given = Given(pairs);
        given.all_known()?;
        let start = given
            .seconds("start_time")?
            .ok_or_else(|| ApiError::missing("start_time"))?;
        let (width, usual, most) = match given.one("bucket_width")?.unwrap_or("1d") {
            "1m" => (60, 60, 1440),
            "1h" => (3600, 24, 168),
            "1d" => (86_400, 7, 31),
            _ => {
                return Err(ApiError::invalid_value(
                    "bucket_width",
                    "must be 1m, 1h or 1d",
                ));
            }
        };
        let end = match given.seconds("end_time")? {
            Some(end) if end <= start => {
                return Err(ApiError::invalid_value(
                    "end_time",
                    "must be later than start_time",
                ));
            }
            Some(end) => end,
            None => now.max(start).saturating_add(1).next_multiple_of(width),
        };
        let limit = match given.number("limit")? {
            None => usual,
            Some(limit) if (1..=most).contains(&limit) => limit,
            Some(_) => {
                let must = format!("must be from 1 to {most} for this bucket_width");
                return Err(ApiError::invalid_value("limit", must));
            }
        };
        let start = match given.one("page")? {
            None => start,
            Some(page) => cursor(page)
                .filter(|at| {
                    (start..end).contains(at) && (*at == start || at.is_multiple_of(width))
                })
                .ok_or_else(|| {
                    ApiError::invalid_value(
                        "page",
                        "must be the next_page of an answer to this query",
                    )
                })?,
        };
        let only = [
            ("user_ids", Dimension::Subject),
            ("project_ids", Dimension::Tenant),
            ("api_key_ids", Dimension::ApiKey),
            ("models", Dimension::Model),
        ];
        let only = only.into_iter().filter_map(|(name, dimension)| {
            let values: Vec<String> = given.list(name).map(str::to_owned).collect();
            (!values.is_empty()).then_some((dimension, values))
        });
        Ok(Self {
            start,
            end,
            width,
            limit,
            group_by: given.groups()?,
            batch: given.flag("batch")?,
            only: only.collect(),
        })
    }

    /// Where this page's last bucket ends.
    pub(super) fn page_end(&self) -> u64 {
        let first = self.start / self.width;
        first
            .saturating_add(self.limit)
            .saturating_mul(self.width)
            .min(self.end)
    }

    /// The name of the next page, if there is one.
    pub(super) fn next_page(&self) -> Option<String> {
        let end = self.page_end();
        (end < self.end).then(|| format!("{CURSOR}{end}"))
    }

    /// The question to the ledger, of all callers.
    pub(super) fn query(&self) -> UsageQuery {
        UsageQuery {
            from: self.start,
            until: self.page_end(),
            bucket: Some(self.width),
            by: self
                .group_by
                .iter()
                .filter_map(|group| group.dimension())
                .collect(),
            only: self.only.clone(),
            ..UsageQuery::default()
        }
    }
}

struct Given<'a>(&'a [(String, String)]);

impl<'a> Given<'a> {
    fn all_known(&self) -> Result<(), ApiError> {
        let is_known = |name: &str| match list_name(name) {
            Some(list) => LISTS.contains(&list),
            None => ONES.contains(&name) || LISTS.contains(&name),
        };
        match self.0.iter().find(|(name, _)| !is_known(name)) {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().take(64).collect();
                Err(ApiError::unknown_field(&name, None))
            }
        }
    }

    fn one(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        let mut values = self.0.iter().filter(|(given, _)| given == name);
        let first = values.next().map(|(_, value)| &**value);
        match values.next() {
            None => Ok(first),
            Some(_) => Err(ApiError::invalid_value(name, "must be given once")),
        }
    }

    /// `models=a&models=b`, `models[]=a&models[]=b` or `models[0]=a&models[1]=b`.
    fn list(&self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named =
            move |(given, _): &&(String, String)| given == name || list_name(given) == Some(name);
        self.0.iter().filter(named).map(|(_, value)| &**value)
    }

    fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.one(name)? else {
            return Ok(None);
        };
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_digits.then(|| text.parse().ok()).flatten();
        number
            .map(Some)
            .ok_or_else(|| ApiError::invalid_value(name, "must be a whole number"))
    }

    fn seconds(&self, name: &str) -> Result<Option<u64>, ApiError> {
        match self.number(name)? {
            Some(seconds) if seconds > LATEST => {
                let must = format!("must be in Unix seconds, at most {LATEST}");
                Err(ApiError::invalid_value(name, must))
            }
            seconds => Ok(seconds),
        }
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.one(name)? {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(ApiError::invalid_value(name, "must be true or false")),
        }
    }

    fn groups(&self) -> Result<Vec<Group>, ApiError> {
        let mut groups = Vec::new();
        for name in self.list("group_by") {
            let group = Group::named(name).ok_or_else(|| {
                let must = "must be project_id, user_id, api_key_id, model, batch, service_tier or api_source";
                ApiError::invalid_value("group_by", must)
            })?;
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        Ok(groups)
    }
}

/// `models` of `models[]` and `models[3]`.
fn list_name(name: &str) -> Option<&str> {
    let (list, index) = name.strip_suffix(']')?.split_once('[')?;
    index
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(list)
}

fn cursor(page: &str) -> Option<u64> {
    let digits = page.strip_prefix(CURSOR)?;
    let is_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| digits.parse().ok()).flatten()
}

const ONES: [&str; 6] = [
    "start_time",
    "end_time",
    "bucket_width",
    "limit",
    "page",
    "batch",
];
const LISTS: [&str; 5] = [
    "group_by",
    "user_ids",
    "project_ids",
    "api_key_ids",
    "models",
];
/// The end of the year 9999: who gives milliseconds by mistake hears so.
const LATEST: u64 = 253_402_300_799;
const CURSOR: &str = "page_";
