//! Families that are computed from the store when they are scraped: no series outlives its token.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{TOKEN, TOKEN_EXPIRY, TOKEN_NEXT_ROTATION, TOKENS};
use crate::domain::conditions::Truth;
use crate::platform::families::{Descriptor, PREFIX};

/// One ApiToken as the metrics show it.
#[derive(Debug, Clone, Copy)]
pub struct TokenRow<'a> {
    /// `metadata.namespace`.
    pub namespace: &'a str,
    /// `metadata.name`.
    pub name: &'a str,
    /// `status.owner.name`, or empty.
    pub owner: &'a str,
    /// The health, from its bounded set.
    pub health: &'static str,
    /// Whether what is declared is in force.
    pub ready: bool,
    /// Whether the Secret holds a credential that gates accept.
    pub delivered: bool,
    /// Unix time of the expiry, if there is one.
    pub expires_at: Option<i64>,
    /// Unix time of the next rotation, if there is one.
    pub next_rotation: Option<i64>,
    /// The values of the business labels in the order of their keys; what is missing counts as empty.
    pub labels: &'a [&'a str],
}

/// Where the tokens come from: the store, in production. It is asked during a scrape, up to four times, and must not
/// block.
pub trait TokenSource: Send + Sync + 'static {
    /// Calls `visit` once for each ApiToken.
    fn for_each(&self, visit: &mut dyn FnMut(TokenRow<'_>));
}

/// Registers the families about tokens.
///
/// `healths` lists every health there is, so that each has a series even at zero (an alert on an absent series never
/// fires). `per_token` switches everything but `tokenward_tokens`.
pub fn register(
    registry: &mut Registry,
    source: Arc<dyn TokenSource>,
    healths: &'static [&'static str],
    per_token: bool,
    labels: &BusinessLabels,
) {
    let collector = Tokens { source, healths, per_token, labels: labels.clone() };
    registry.sub_registry_with_prefix(PREFIX).register_collector(Box::new(collector));
}

/// How many business labels there may be: each is on a series of every token.
pub const MAX_BUSINESS_LABELS: usize = 16;

/// The labels of ApiTokens that are copied to `token_info`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BusinessLabels {
    keys: Vec<String>,
    names: Vec<String>,
}

/// Why the list of business labels is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusinessLabelError {
    /// Two keys would become one label name, which no scraper accepts.
    #[error("--metric-labels: {first:?} and {second:?} both become {name}: keep one of them")]
    Clash {
        /// The earlier key.
        first: String,
        /// The later key.
        second: String,
        /// The label name of both.
        name: String,
    },
    /// More than [`MAX_BUSINESS_LABELS`].
    #[error("--metric-labels has {0} keys: write at most {MAX_BUSINESS_LABELS}")]
    TooMany(usize),
}

impl BusinessLabels {
    /// Derives the label names from label keys: `cost-center` becomes `label_cost_center`, as kube-state-metrics does it.
    pub fn new(keys: &[String]) -> Result<Self, BusinessLabelError> {
        if keys.len() > MAX_BUSINESS_LABELS {
            return Err(BusinessLabelError::TooMany(keys.len()));
        }
        let mut labels = Self::default();
        for key in keys {
            let name: String = std::iter::once("label_".to_owned())
                .chain(
                    key.chars()
                        .map(|c| if c.is_ascii_alphanumeric() { c.to_string() } else { "_".to_owned() }),
                )
                .collect();
            if let Some(clash) = labels.names.iter().position(|known| *known == name) {
                let first = labels.keys.swap_remove(clash);
                return Err(BusinessLabelError::Clash { first, second: key.clone(), name });
            }
            labels.keys.push(key.clone());
            labels.names.push(name);
        }
        Ok(labels)
    }

    /// The keys to look up on an ApiToken, in the order that [`TokenRow::labels`] has to follow.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }
}

struct Tokens {
    source: Arc<dyn TokenSource>,
    healths: &'static [&'static str],
    per_token: bool,
    labels: BusinessLabels,
}

impl Debug for Tokens {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// Visits every token until one cannot be written.
    fn each(&self, mut write: impl FnMut(TokenRow<'_>) -> fmt::Result) -> fmt::Result {
        let mut outcome = Ok(());
        self.source.for_each(&mut |row| {
            if outcome.is_ok() {
                outcome = write(row);
            }
        });
        outcome
    }

    fn counts(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut counts: BTreeMap<&'static str, i64> =
            self.healths.iter().map(|health| (*health, 0)).collect();
        self.each(|row| {
            *counts.entry(row.health).or_default() += 1;
            Ok(())
        })?;
        let mut metric = encoder.encode_descriptor(TOKENS.name, &help(&TOKENS), None, MetricType::Gauge)?;
        for (health, count) in counts {
            let labels = [(TOKENS.labels[0], health)];
            metric.encode_family(&labels)?.encode_gauge(&count)?;
        }
        Ok(())
    }

    fn info(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric =
            encoder.encode_descriptor(TOKEN.registered_name(), &help(&TOKEN), None, MetricType::Info)?;
        self.each(|row| metric.encode_info(&InfoLabels { row, names: &self.labels.names }))
    }

    fn times(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        descriptor: &'static Descriptor,
        time: impl Fn(&TokenRow<'_>) -> Option<i64>,
    ) -> fmt::Result {
        let mut metric =
            encoder.encode_descriptor(descriptor.name, &help(descriptor), None, MetricType::Gauge)?;
        self.each(|row| match time(&row) {
            Some(seconds) => metric.encode_family(&NameLabels(row))?.encode_gauge(&seconds),
            None => Ok(()),
        })
    }
}

impl Collector for Tokens {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.counts(&mut encoder)?;
        if !self.per_token {
            return Ok(());
        }
        // One pass for each family: OpenMetrics wants its samples together.
        self.info(&mut encoder)?;
        self.times(&mut encoder, &TOKEN_EXPIRY, |row| row.expires_at)?;
        self.times(&mut encoder, &TOKEN_NEXT_ROTATION, |row| row.next_rotation)
    }
}

/// The registry appends this to the help of what it holds itself.
fn help(descriptor: &Descriptor) -> String {
    format!("{}.", descriptor.help)
}

fn write_pairs<'a>(
    encoder: &mut LabelSetEncoder<'_>,
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> fmt::Result {
    pairs.into_iter().try_for_each(|pair| pair.encode(encoder.encode_label()))
}

/// Written straight from the row: a scrape of ten thousand tokens allocates no label strings.
struct InfoLabels<'a> {
    row: TokenRow<'a>,
    names: &'a [String],
}

impl EncodeLabelSet for InfoLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let row = self.row;
        let [ready, delivered] = [row.ready, row.delivered].map(|holds| Truth::from(holds).as_str());
        let values = [row.namespace, row.name, row.owner, row.health, ready, delivered];
        write_pairs(encoder, TOKEN.labels.iter().copied().zip(values))?;
        let values = row.labels.iter().copied().chain(std::iter::repeat(""));
        write_pairs(encoder, self.names.iter().map(String::as_str).zip(values))
    }
}

#[derive(Debug)]
struct NameLabels<'a>(TokenRow<'a>);

impl EncodeLabelSet for NameLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        write_pairs(encoder, TOKEN_EXPIRY.labels.iter().copied().zip([self.0.namespace, self.0.name]))
    }
}
