//! An object as the API server sent it, of which only the name must be readable.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::ApiResource;
use kube::core::DynamicResourceScope;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Whatever stands in a list or a watch event. Decoding it cannot fail, so it cannot stop a stream.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    /// Name, namespace and version: what the watch itself works with.
    metadata: ObjectMeta,
    /// Everything.
    pub(super) value: Value,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let text = |name: &str| {
            let found = value.get("metadata").and_then(|metadata| metadata.get(name));
            found.and_then(Value::as_str).map(str::to_owned)
        };
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Self { metadata, value })
    }
}

impl Raw {
    /// The value, which says of what kind it is: the items of a list do not.
    pub(super) fn into_value(self, resource: &ApiResource) -> Value {
        let mut value = self.value;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("apiVersion".to_owned(), resource.api_version.clone().into());
            fields.insert("kind".to_owned(), resource.kind.clone().into());
        }
        value
    }
}

impl Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// An object of which nothing but name and version is looked at, as for Secrets: the rest is not even asked for, and what
/// comes all the same (annotations may hold a copy of what is in the object) is dropped at once.
#[derive(Clone, Debug)]
pub(super) struct Named {
    metadata: ObjectMeta,
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Raw { metadata, .. } = Raw::deserialize(deserializer)?;
        Ok(Self { metadata })
    }
}

impl Resource for Named {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    /// The API server is asked for `PartialObjectMetadata`.
    fn metadata_api() -> bool {
        true
    }

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        Raw::kind(resource)
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        Raw::group(resource)
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        Raw::version(resource)
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        Raw::plural(resource)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
