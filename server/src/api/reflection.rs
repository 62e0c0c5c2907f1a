//! `grpc.reflection`: lets tools and languages without our SDK find every call
//! and message. Version 1, and the older one that many clients still ask for.

use std::convert::Infallible;

use http::{Request, Response};
use tonic::body::Body;
use tonic_reflection::server::{Builder, Error};
use tower::util::BoxCloneSyncService;

use super::descriptors::SETS;

/// A service whose type cannot be named.
pub(super) type Service = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

pub(super) const V1: &str = "grpc.reflection.v1.ServerReflection";
pub(super) const V1ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// Both versions.
#[derive(Debug, Clone)]
pub(super) struct Reflection {
    pub(super) v1: Service,
    pub(super) v1alpha: Service,
}

impl Reflection {
    pub(super) fn new() -> Self {
        Self::build().expect("descriptors are compiled in, and every test reads them")
    }

    fn build() -> Result<Self, Error> {
        Ok(Self {
            v1: Service::new(builder().build_v1()?),
            v1alpha: Service::new(builder().build_v1alpha()?),
        })
    }
}

fn builder() -> Builder<'static> {
    let builder = Builder::configure().include_reflection_service(false);
    SETS.into_iter()
        .fold(builder, Builder::register_encoded_file_descriptor_set)
}
