//! What the gate should say, said again in the plainest way: slow, short, and without the gate's own code.

use ::http::{HeaderMap, Uri};

use super::scene::{Known, Scene};
use crate::gate::extract::MAX_VALUE;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// CRC-32/IEEE bit by bit, as six digits of base62.
pub(super) fn checksum(body: &[u8]) -> String {
    let mut crc = !0_u32;
    for byte in body {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    let mut rest = !crc;
    let mut digits = String::new();
    for _ in 0..6 {
        digits.insert(0, char::from(BASE62[rest as usize % 62]));
        rest /= 62;
    }
    digits
}

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Malformed,
    Checksum,
}

/// Prefix and id of a token.
pub(super) fn token(text: &str) -> Result<(&str, &str), Fault> {
    let parts: Vec<&str> = text.rsplitn(3, '_').collect();
    let [tail, id, prefix] = parts[..] else { return Err(Fault::Malformed) };
    let base62 = |text: &str| text.bytes().all(|byte| BASE62.contains(&byte));
    let in_prefix = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let well_formed = base62(tail)
        && tail.len() == 49
        && base62(id)
        && id.len() == 10
        && (1..=20).contains(&prefix.len())
        && prefix.bytes().all(in_prefix)
        && prefix.as_bytes()[0].is_ascii_lowercase()
        && !prefix.ends_with('_')
        && !prefix.contains("__");
    if !well_formed {
        return Err(Fault::Malformed);
    }
    let (body, crc) = text.split_at(text.len() - 6);
    if checksum(body.as_bytes()) == crc { Ok((prefix, id)) } else { Err(Fault::Checksum) }
}

/// The living token in these headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'s> {
    pub known: &'s Known,
    /// The header that it stands in, in lower case.
    pub header: &'static str,
    /// Base64 has sloppy spellings that a gate may refuse; in any other it has to accept.
    pub clear: bool,
}

/// Places of which the reference knows only what is read in them, not where in them.
pub(super) const ELSEWHERE: [&str; 3] = ["query", "cookie", "websocket"];

/// The token of this text.
pub(super) fn presented<'s>(scene: &'s Scene, text: Option<&str>) -> Option<&'s Known> {
    scene.known.iter().find(|known| Some(known.token.expose()) == text)
}

/// The living token that these headers hold in exactly one of the places that are read, where nothing stands in another one.
pub(super) fn shown<'s>(
    scene: &'s Scene,
    headers: &[(&[u8], &[u8])],
    api_key: &str,
    sources: &[&str],
) -> Option<Shown<'s>> {
    if sources.iter().any(|source| ELSEWHERE.contains(source)) {
        return None;
    }
    let is = |name: &[u8], wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
    let reads = |source| sources.is_empty() || sources.contains(&source);
    let place = |name: &[u8]| {
        (is(name, "authorization") && reads("authorization")) || (is(name, api_key) && reads("header"))
    };
    let places: Vec<_> =
        headers.iter().filter(|(name, value)| place(name) && !value.trim_ascii().is_empty()).collect();
    let [(name, value)] = places[..] else { return None };
    let living = |text: &[u8]| {
        let same = |known: &&Known| known.living.is_some() && known.token.expose().as_bytes() == text;
        scene.known.iter().find(same)
    };
    if !is(name, "authorization") {
        let known = living(value.trim_ascii()).filter(|_| value.len() <= MAX_VALUE)?;
        return Some(Shown { known, header: "", clear: true });
    }
    let value = value.trim_ascii();
    if value.len() > MAX_VALUE {
        return None;
    }
    let header = "authorization";
    if let Some(rest) = after_scheme(value, "bearer").or_else(|| after_scheme(value, "token")) {
        return Some(Shown { known: living(rest)?, header, clear: true });
    }
    let rest = after_scheme(value, "basic")?;
    let pair = base64(rest)?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    let (user, password) = (pair[..colon].trim_ascii(), pair[colon + 1..].trim_ascii());
    let is_token = std::str::from_utf8(user).is_ok_and(|user| token(user).is_ok());
    let known = match password {
        b"" | b"x-oauth-basic" => living(user)?,
        _ if is_token => return None,
        _ => living(password)?,
    };
    let clear = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &pair).as_bytes() == rest;
    Some(Shown { known, header, clear })
}

/// The query that the client asked with.
pub(super) fn clients_query<'u>(uri: &'u Uri, headers: &'u HeaderMap) -> Option<&'u str> {
    let one = |name: &str| match headers.get_all(name).iter().collect::<Vec<_>>()[..] {
        [value] => value.to_str().ok(),
        _ => None,
    };
    let target = match uri.path() {
        "/authz/nginx" => one("x-original-uri")?,
        "/authz/traefik" | "/authz/caddy" => one("x-forwarded-uri")?,
        _ => {
            let query = uri.query()?;
            let at = if query.starts_with("path=") { 0 } else { query.find("&path=")? };
            &query[at..]
        }
    };
    Some(&target[target.find('?')? + 1..])
}

fn after_scheme<'a>(value: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let (own, rest) = value.split_at_checked(scheme.len())?;
    let separated = matches!(rest.first(), Some(b' ' | b'\t'));
    (own.eq_ignore_ascii_case(scheme.as_bytes()) && separated).then(|| rest.trim_ascii())
}

/// Base64 in any spelling: padded or not, with stray bits at its end or without.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for digit in text.iter().take_while(|byte| **byte != b'=') {
        bits = bits << 6 | DIGITS.iter().position(|own| own == digit)? as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Some(bytes)
}

/// The pairs that a route demands by its own query. One that is empty is a pair, too, of which nothing is left.
pub(super) fn demanded(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|_| !query.is_empty());
    let pair = |pair: &str| form_urlencoded::parse(pair.as_bytes()).into_owned().next().unwrap_or_default();
    pairs.map(pair).collect()
}

/// What of the URL of Envoy's HTTP dialect is the route's: the rest, from `path=` on, is the client's.
pub(super) fn envoy_query(path: &str, query: Option<&str>) -> String {
    let cut = |text: &str| {
        let text = format!("&{text}");
        text.find("&path=").map(|end| text[..end].get(1..).unwrap_or_default().to_owned()).ok_or(text)
    };
    match path.strip_prefix("/authz/envoy/") {
        Some(below) => cut(below.split('/').next().unwrap_or_default()).unwrap_or_default(),
        None => query.map(|query| cut(query).unwrap_or_else(|_| query.to_owned())).unwrap_or_default(),
    }
}

/// What of a target of Envoy's HTTP dialect is surely the route's, byte by byte.
pub(super) fn before_the_clients(target: &[u8]) -> &[u8] {
    if !target.starts_with(b"/authz/envoy?") {
        return b"";
    }
    let path = |at: &usize| matches!(target[*at], b'?' | b'&') && target[at + 1..].starts_with(b"path=");
    &target[..(0..target.len()).find(path).unwrap_or(target.len())]
}

/// The address that the `passed_over + 1`-th entry from the right names, or the first where there are fewer.
pub(super) fn forwarded(values: &[&[u8]], passed_over: usize) -> Option<Vec<u8>> {
    let joined = values.join(&b","[..]);
    let entries: Vec<&[u8]> = joined.split(|byte| *byte == b',').collect();
    let at = entries.len().saturating_sub(passed_over + 1);
    (!values.is_empty()).then(|| entries[at].to_vec())
}
