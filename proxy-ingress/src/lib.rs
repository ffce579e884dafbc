//! The L7 ingress of weir: HTTP and HTTPS by host and path, straight to the pods.
//!
//! ```text
//!  Ingress, Service, EndpointSlice, Secret          (proxy-source: Kubernetes, or a folder of manifests)
//!      │  model/      pure: what they ask for, who wins, what is wrong
//!      ▼
//!  Snapshot           immutable; swapped as a whole, built anew only where something changed
//!      │  route/      pure: host, path, predicates ─▶ Route        (the same code answers `explain`)
//!      │  balance/    pure: which endpoint
//!      ▼
//!  request ─▶ listen ─▶ tls ─▶ request ─▶ route ─▶ upstream ─▶ response
//! ```

#![forbid(unsafe_code)]

pub mod model;
pub mod route;
