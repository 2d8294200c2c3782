//! The seeds that are not text: `CheckRequest` as Envoy sends it.

use prost::Message as _;
use prost::bytes::Bytes;
use tokenward::gate::dialect::ext_authz::{
    Address, AttributeContext, CheckRequest, Entry, HeaderMap, HeaderValue, HttpAttributes, HttpRequest,
    Peer, SocketAddress,
};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn request(extensions: &[(&str, &str)], http: HttpRequest) -> Vec<u8> {
    let entry = |(key, value): &(&str, &str)| Entry { key: bytes(key), value: bytes(value) };
    let address = Address { socket_address: Some(SocketAddress { address: bytes("203.0.113.7") }) };
    let source = Peer { address: Some(address), principal: bytes("spiffe://cluster.local/ns/shop/sa/web") };
    let attributes = AttributeContext {
        source: Some(source),
        request: Some(HttpAttributes { http: Some(http) }),
        context_extensions: extensions.iter().map(entry).collect(),
    };
    CheckRequest { attributes: Some(attributes) }.encode_to_vec()
}

fn plain(headers: &[(&str, &str)]) -> HttpRequest {
    let headers = headers.iter().map(|(key, value)| Entry { key: bytes(key), value: bytes(value) });
    HttpRequest { headers: headers.collect(), ..HttpRequest::default() }
}

fn raw(headers: &[(&str, &str)]) -> HttpRequest {
    let field = |(key, value): &(&str, &str)| HeaderValue {
        key: bytes(key),
        value: Bytes::new(),
        raw_value: bytes(value),
    };
    HttpRequest {
        header_map: Some(HeaderMap { headers: headers.iter().map(field).collect() }),
        ..HttpRequest::default()
    }
}

/// Every seed of `check_request` by its name.
pub fn check_requests() -> Vec<(&'static str, Vec<u8>)> {
    let bearer = ("authorization", "Bearer {orders}");
    let all = [("audience", "orders billing"), ("scope", "orders:read orders:write"), ("challenge", "basic")];
    let spoofed = [
        bearer,
        ("x-tokenward-token", "shop/root"),
        ("x-tokenward-credential", "0000000000"),
        ("x-tokenward-owner", "mallory"),
        ("x-tokenward-scopes", "admin"),
        ("x-forwarded-for", "198.51.100.1"),
        ("user-agent", "curl/8.5.0"),
    ];
    let mut both = plain(&[bearer]);
    both.header_map = raw(&[bearer]).header_map;
    vec![
        ("accepted-bearer", request(&all, plain(&spoofed))),
        ("accepted-raw", request(&all, raw(&spoofed))),
        ("accepted-key", request(&[("header", "X-Orders-Key")], plain(&[("x-orders-key", "{plain}")]))),
        (
            "accepted-raw-basic",
            request(
                &[],
                raw(&[("authorization", "Basic {{git:{plain}}}"), ("x-tokenward-owner", "mallory")]),
            ),
        ),
        ("denied-audience", request(&[("audience", "orders stock")], plain(&[bearer]))),
        ("denied-scope", request(&[("scope", "orders:delete")], plain(&[bearer]))),
        ("denied-empty-demand", request(&[("scope", " ")], plain(&[bearer]))),
        ("denied-unknown-key", request(&[("audiences", "orders")], plain(&[bearer]))),
        ("denied-both-forms", request(&[], both)),
        ("denied-two-places", request(&[], plain(&[bearer, ("x-api-key", "{plain}")]))),
        ("denied-joined", request(&[], plain(&[("authorization", "Bearer {orders},Bearer {orders}")]))),
        ("denied-ended", request(&[], plain(&[("authorization", "Bearer {ended}")]))),
        ("denied-forged", request(&[], raw(&[("authorization", "Bearer {forged}")]))),
        ("denied-foreign", request(&[], plain(&[("x-api-key", "{foreign}")]))),
        ("denied-missing", request(&[("challenge", "basic")], plain(&[]))),
        ("denied-empty", Vec::new()),
    ]
}
