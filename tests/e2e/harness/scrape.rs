//! Metrics, read as a scraper would.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
    /// As it came.
    pub text: String,
}

impl Scrape {
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect();
        Self { samples, text: text.to_owned() }
    }

    /// The sum of the samples of `name` whose labels have these values.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted = |found: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| found.get(*key).map(String::as_str) == Some(value))
        };
        let of_name = self.samples.iter().filter(|(found, of, _)| found == name && wanted(of));
        of_name.map(|(_, _, value)| value).sum()
    }
}

fn sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let (name, rest) = match line.split_once('{') {
        None => line.split_once(' ').map(|(name, value)| (name, ("", value)))?,
        Some((name, rest)) => rest.rsplit_once('}').map(|split| (name, split))?,
    };
    let (labels, value) = rest;
    let labels = labels.split("\",").filter_map(|pair| pair.split_once("=\""));
    let labels = labels.map(|(key, value)| (key.to_owned(), value.trim_end_matches('"').to_owned()));
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some((name.to_owned(), labels.collect(), value))
}

#[test]
fn samples_are_read() {
    let scrape = Scrape::parse(
        "# TYPE x counter\nx_total{verb=\"get\",code=\"200\"} 3\nx_total{verb=\"put\"} 4 17\ny 1.5\n",
    );
    assert_eq!(scrape.sum("x_total", &[]), 7.0);
    assert_eq!(scrape.sum("x_total", &[("verb", "get")]), 3.0);
    assert_eq!(scrape.sum("y", &[]), 1.5);
}
