//! The messages of Envoy's external authorization, as far as they are used here; everything else in them is skipped.
//!
//! From `api/envoy/service/auth/v3/external_auth.proto` and `attribute_context.proto`,
//! `api/envoy/config/core/v3/{address,base}.proto`, `api/envoy/type/v3/http_status.proto` (envoyproxy/envoy) and
//! `google/rpc/status.proto`, `google/protobuf/wrappers.proto`.
//!
//! Two liberties, neither visible on the wire: a `map` is read as the repeated entries that it is, because it is walked once
//! and never looked up; and texts are `bytes`, because they are slices of what was received, and because a value that is not
//! UTF-8 shall be denied as such and not fail the call.

use prost::bytes::Bytes;

/// The method.
pub const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";

/// `envoy.service.auth.v3.CheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckRequest {
    /// What is known of the request.
    #[prost(message, optional, tag = "1")]
    pub attributes: Option<AttributeContext>,
}

/// `envoy.service.auth.v3.AttributeContext`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttributeContext {
    /// Who sent the request, by the last hop.
    #[prost(message, optional, tag = "1")]
    pub source: Option<Peer>,
    /// The request.
    #[prost(message, optional, tag = "4")]
    pub request: Option<HttpAttributes>,
    /// What the route's configuration says: never the client's.
    #[prost(message, repeated, tag = "10")]
    pub context_extensions: Vec<Entry>,
}

/// `envoy.service.auth.v3.AttributeContext.Peer`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Peer {
    /// Its address.
    #[prost(message, optional, tag = "1")]
    pub address: Option<Address>,
    /// Its authenticated identity, from its certificate. (`service`, field 2, is what the client claims: not read.)
    #[prost(bytes = "bytes", tag = "4")]
    pub principal: Bytes,
}

/// `envoy.config.core.v3.Address`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Address {
    /// Not of a pipe.
    #[prost(message, optional, tag = "1")]
    pub socket_address: Option<SocketAddress>,
}

/// `envoy.config.core.v3.SocketAddress`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SocketAddress {
    /// IPv4 or IPv6.
    #[prost(bytes = "bytes", tag = "2")]
    pub address: Bytes,
}

/// `envoy.service.auth.v3.AttributeContext.Request`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpAttributes {
    /// The HTTP request.
    #[prost(message, optional, tag = "2")]
    pub http: Option<HttpRequest>,
}

/// `envoy.service.auth.v3.AttributeContext.HttpRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpRequest {
    /// `map<string, string> headers`: names in lower case, values of one name joined by commas.
    #[prost(message, repeated, tag = "3")]
    pub headers: Vec<Entry>,
    /// The request target, with its query, undecoded.
    #[prost(bytes = "bytes", tag = "4")]
    pub path: Bytes,
    /// With `encode_raw_headers`, instead of `headers`: each as it was sent.
    #[prost(message, optional, tag = "13")]
    pub header_map: Option<HeaderMap>,
}

/// An entry of `map<string, string>`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    /// Key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `envoy.config.core.v3.HeaderMap`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderMap {
    /// The headers.
    #[prost(message, repeated, tag = "1")]
    pub headers: Vec<HeaderValue>,
}

/// `envoy.config.core.v3.HeaderValue`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValue {
    /// Name.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Value, unless it is raw.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// Value as it was sent.
    #[prost(bytes = "bytes", tag = "3")]
    pub raw_value: Bytes,
}

/// `envoy.service.auth.v3.CheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckResponse {
    /// Code 0 lets through, anything else denies. Absent would let through: it is always set.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    /// What to do with the request.
    #[prost(oneof = "HttpResponse", tags = "2, 3")]
    pub http_response: Option<HttpResponse>,
}

/// `CheckResponse.http_response`.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum HttpResponse {
    /// What the client gets.
    #[prost(message, tag = "2")]
    Denied(DeniedHttpResponse),
    /// What the upstream gets.
    #[prost(message, tag = "3")]
    Ok(OkHttpResponse),
}

/// `google.rpc.Status`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Status {
    /// `google.rpc.Code`.
    #[prost(int32, tag = "1")]
    pub code: i32,
}

/// `envoy.service.auth.v3.DeniedHttpResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeniedHttpResponse {
    /// The client's status.
    #[prost(message, optional, tag = "1")]
    pub status: Option<HttpStatus>,
    /// The client's headers.
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
}

/// `envoy.type.v3.HttpStatus`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct HttpStatus {
    /// An enum whose numbers are the codes.
    #[prost(int32, tag = "1")]
    pub code: i32,
}

/// `envoy.service.auth.v3.OkHttpResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OkHttpResponse {
    /// Headers to set on the request.
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    /// Headers to remove from the request. One that is also set is removed.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub headers_to_remove: Vec<Bytes>,
    /// Parameters to remove from the request's query.
    #[prost(bytes = "bytes", repeated, tag = "8")]
    pub query_parameters_to_remove: Vec<Bytes>,
}

/// `envoy.config.core.v3.HeaderValueOption`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValueOption {
    /// The header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<HeaderValue>,
    /// Always set, and false: what the client sent is overwritten. Left out, some Envoys append.
    #[prost(message, optional, tag = "2")]
    pub append: Option<BoolValue>,
}

/// `google.protobuf.BoolValue`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct BoolValue {
    /// False is an empty message, which is not the same as none.
    #[prost(bool, tag = "1")]
    pub value: bool,
}
