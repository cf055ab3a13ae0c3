//! Sums over requests: who used how much, and when.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::rights::{number, unsigned};

/// What to add up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageQuery {
    /// Unix seconds from which requests count, by their arrival.
    pub from: u64,
    /// Unix seconds up to and without which they count.
    pub until: u64,
    /// Seconds of a bucket; buckets start at its multiples. `None`: one for all.
    pub bucket: Option<u64>,
    /// What to tell apart.
    pub by: Vec<Dimension>,
    /// One subject of one issuer: (issuer, subject).
    pub whose: Option<(String, String)>,
    /// Only these values of these dimensions.
    pub only: Vec<(Dimension, Vec<String>)>,
    /// At most this many rows.
    pub most: Option<usize>,
}

/// By what requests can be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// Subject and issuer.
    Subject,
    /// Tenant and issuer.
    Tenant,
    /// The client application and its issuer.
    Client,
    /// The served model.
    Model,
    /// The API key.
    ApiKey,
}

impl Dimension {
    fn column(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Tenant => "tenant",
            Self::Client => "client",
            Self::Model => "model",
            Self::ApiKey => "api_key",
        }
    }

    /// Whether the same name means somebody else at another issuer.
    fn is_of_an_issuer(self) -> bool {
        matches!(self, Self::Subject | Self::Tenant | Self::Client)
    }
}

/// The sum over requests that are alike in what they are told apart by.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsageRow {
    /// Unix seconds at which its bucket starts, if there are buckets.
    pub bucket: Option<u64>,
    /// The issuer, if anything of it is told apart.
    pub issuer: Option<String>,
    /// Values of [`UsageQuery::by`], in its order; `None` for requests without one.
    pub values: Vec<Option<String>>,
    /// Requests, those under way included.
    pub requests: u64,
    /// Tokens of their prompts.
    pub prompt: u64,
    /// Those of them that came from the prefix cache.
    pub cached: u64,
    /// Tokens generated.
    pub completion: u64,
}

/// Rows in the order of bucket, values and issuer.
pub(super) fn usage(
    connection: &Connection,
    query: &UsageQuery,
) -> rusqlite::Result<Vec<UsageRow>> {
    let mut given = vec![
        Value::from(number(query.from.saturating_mul(1000))),
        Value::from(number(query.until.saturating_mul(1000))),
    ];
    let mut only = String::new();
    if let Some((issuer, subject)) = &query.whose {
        only += " AND issuer = ? AND subject = ?";
        given.extend([Value::from(issuer.clone()), Value::from(subject.clone())]);
    }
    for (dimension, values) in &query.only {
        let marks = vec!["?"; values.len()].join(", ");
        only += &format!(" AND {} IN ({marks})", dimension.column());
        given.extend(values.iter().cloned().map(Value::from));
    }
    // Only names of columns and numbers go into the text; everything that came from somewhere is bound.
    let bucket = match query.bucket {
        Some(seconds) => format!(
            "started_ms / {}",
            number(seconds.max(1).saturating_mul(1000))
        ),
        None => "NULL".to_owned(),
    };
    let issuer = match query.by.iter().any(|dimension| dimension.is_of_an_issuer()) {
        true => "issuer",
        false => "NULL",
    };
    let values = query.by.iter().map(|dimension| dimension.column());
    let keys: Vec<&str> = values.chain([issuer, &*bucket]).collect();
    let places: Vec<String> = (1..=keys.len()).map(|place| place.to_string()).collect();
    let (last, first) = (
        &places[places.len() - 1],
        places[..places.len() - 1].join(", "),
    );
    let sql = format!(
        "SELECT {keys}, count(*), sum(prompt), sum(cached), sum(completion) FROM requests
         WHERE started_ms >= ? AND started_ms < ?{only}
         GROUP BY {first}, {last} ORDER BY {last}, {first} LIMIT {most}",
        keys = keys.join(", "),
        most = query.most.map_or(-1, |most| number(most as u64)),
    );
    let mut statement = connection.prepare(&sql)?;
    let columns = query.by.len();
    let rows = statement.query_map(params_from_iter(given), |row| {
        let values = (0..columns).map(|index| row.get(index));
        let bucket: Option<i64> = row.get(columns + 1)?;
        Ok(UsageRow {
            values: values.collect::<Result<_, _>>()?,
            issuer: row.get(columns)?,
            bucket: bucket
                .and_then(|bucket| u64::try_from(bucket).ok())
                .zip(query.bucket)
                .map(|(bucket, seconds)| bucket.saturating_mul(seconds)),
            requests: unsigned(row, columns + 2)?,
            prompt: unsigned(row, columns + 3)?,
            cached: unsigned(row, columns + 4)?,
            completion: unsigned(row, columns + 5)?,
        })
    })?;
    rows.collect()
}
