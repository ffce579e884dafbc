//! Writes a state to the API server.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Client, Config};
use serde_json::json;

use crate::marker;
use crate::objects::{Key, Object, Objects, Resource};

/// The API server, and what it holds by now.
pub struct Writer {
    apis: HashMap<&'static str, Api<DynamicObject>>,
    held: Objects,
}

impl Writer {
    /// Connects as the one who may do everything.
    pub async fn connect(kubeconfig: &Path) -> Result<Self> {
        let file = Kubeconfig::read_from(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let kind = |group, version, kind| ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let namespaced = |resource| Api::namespaced_with(client.clone(), "default", &resource);
        let apis = [
            ("nodes", Api::all_with(client.clone(), &kind("", "v1", "Node"))),
            ("services", namespaced(kind("", "v1", "Service"))),
            (
                "slices",
                namespaced(kind("discovery.k8s.io", "v1", "EndpointSlice")),
            ),
        ];
        Ok(Self {
            apis: apis.into(),
            held: Objects::new(),
        })
    }

    /// Makes the API server's objects these; the marker comes last.
    pub async fn write(&mut self, mut wanted: Objects, generation: u16) -> Result<()> {
        let marker = marker::objects(generation);
        let kept = self
            .held
            .iter()
            .filter(|(key, _)| key.1.starts_with(marker::NAME));
        wanted.extend(kept.map(|(key, object)| (key.clone(), object.clone())));
        let gone = self
            .held
            .iter()
            .filter(|(key, held)| wanted.get(*key).is_none_or(|wanted| wanted.life != held.life));
        let gone: Vec<_> = gone.map(|(key, _)| key.clone()).collect();
        try_join_all(gone.iter().map(|key| self.delete(key))).await?;
        for key in &gone {
            self.held.remove(key);
        }
        try_join_all(wanted.iter().map(|(key, object)| self.put(key, object))).await?;
        self.held = wanted;
        try_join_all(marker.iter().map(|(key, object)| self.put(key, object))).await?;
        self.held.extend(marker);
        Ok(())
    }

    fn api(&self, key: &Key) -> Result<&Api<DynamicObject>> {
        let name = match key.0 {
            Resource::Node => "nodes",
            Resource::Service => "services",
            Resource::Slice => "slices",
        };
        self.apis.get(name).with_context(|| format!("no API for {name}"))
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let deleted = self.api(key)?.delete(&key.1, &DeleteParams::default()).await;
        deleted
            .map(drop)
            .with_context(|| format!("cannot delete {key:?}"))
    }

    async fn put(&self, key: &Key, wanted: &Object) -> Result<()> {
        let (api, held) = (self.api(key)?, self.held.get(key));
        let failed = |what: &str| format!("cannot {what} {key:?}: {}", wanted.body);
        let new = || -> Result<DynamicObject> { Ok(serde_json::from_value(wanted.body.clone())?) };
        match held {
            None => {
                let created = api.create(&PostParams::default(), &new()?).await;
                created.with_context(|| failed("create"))?;
            }
            Some(held) if held.body != wanted.body => {
                let replaced = api.replace(&key.1, &PostParams::default(), &new()?).await;
                replaced.with_context(|| failed("replace"))?;
            }
            Some(_) => {}
        }
        let Some(status) = &wanted.status else {
            return Ok(());
        };
        if held.is_some_and(|held| held.status == wanted.status) {
            return Ok(());
        }
        let patch = Patch::Merge(json!({ "status": status }));
        let patched = api.patch_status(&key.1, &PatchParams::default(), &patch).await;
        patched
            .map(drop)
            .with_context(|| format!("cannot set the status of {key:?} to {status}"))
    }
}
