//! The CustomResourceDefinition as it is installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;

use super::meaning::{self, Allowed};
use super::{ApiToken, TokenUsage};

/// The definition of every kind of this group, with nothing allowed beyond the tables.
pub fn crds() -> Vec<CustomResourceDefinition> {
    crds_allowing(&Allowed::default())
}

/// The definition of every kind of this group, for an installation that allows these types, names and keys of Secrets.
pub fn crds_allowing(allowed: &Allowed) -> Vec<CustomResourceDefinition> {
    let mut tokens = ApiToken::crd();
    for version in &mut tokens.spec.versions {
        if let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            meaning::rules::add(root, allowed);
        }
    }
    let mut crds = vec![tokens, TokenUsage::crd()];
    for version in crds.iter_mut().flat_map(|crd| &mut crd.spec.versions) {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            for_each(schema, &|schema| {
                refuse_null(schema);
                narrow_time(schema);
            });
        }
    }
    crds
}

/// An optional field may be left out, not be null: a null would count as present in the rules and mean nothing.
fn refuse_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
}

/// RFC 3339 as every client reads it. `date-time` alone also lets pass what other parsers refuse: any character in place of
/// the decimal point, offsets of 99 hours, more digits than nanoseconds, the last hours of the year 9999. An object with such
/// a time would be stored, and then understood by nobody.
const TIME: &str = r"^[0-8][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";

fn narrow_time(schema: &mut JSONSchemaProps) {
    if schema.format.as_deref() == Some("date-time") {
        schema.pattern = Some(TIME.to_owned());
    }
}

fn for_each(schema: &mut JSONSchemaProps, change: &impl Fn(&mut JSONSchemaProps)) {
    change(schema);
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        for_each(property, change);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        for_each(values, change);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        for_each(items, change);
    }
}
