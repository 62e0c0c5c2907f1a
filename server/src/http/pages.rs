//! What the HTTP port has to say.

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};

use tokio::time::timeout;

use crate::health::{Health, NotReady};
use crate::limits::READY_TIMEOUT;
use crate::metrics::Metrics;

const PLAIN: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// See the module.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) health: Health,
    pub(super) metrics: Metrics,
}

impl Pages {
    pub(super) async fn answer(&self, method: &Method, path: &str) -> Response<String> {
        if method != Method::GET && method != Method::HEAD {
            let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
            refused
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match path {
            "/healthz" if self.health.is_alive().await => page(StatusCode::OK, "ok\n"),
            "/healthz" => page(
                StatusCode::SERVICE_UNAVAILABLE,
                "the broker's loop stands still: restart it, and keep its log\n",
            ),
            "/readyz" => match self.health.is_ready().await {
                Ok(()) => page(StatusCode::OK, "ok\n"),
                Err(why) => page(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            "/metrics" => self.metrics().await,
            _ => page(StatusCode::NOT_FOUND, "here are /healthz, /readyz and /metrics\n"),
        }
    }

    async fn metrics(&self) -> Response<String> {
        let Some(broker) = self.health.broker() else {
            return page(StatusCode::SERVICE_UNAVAILABLE, "the store is being opened\n");
        };
        match timeout(READY_TIMEOUT, self.metrics.page(broker)).await {
            Ok(Ok(text)) => {
                let mut page = page(StatusCode::OK, text);
                let prometheus = HeaderValue::from_static(PROMETHEUS);
                page.headers_mut().insert(CONTENT_TYPE, prometheus);
                page
            }
            Ok(Err(error)) => page(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
            Err(_) => page(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", NotReady::Busy)),
        }
    }
}

fn page(status: StatusCode, text: impl Into<String>) -> Response<String> {
    let mut page = Response::new(text.into());
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PLAIN));
    page
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::Access;
    use crate::config::StoreKind;

    #[tokio::test]
    async fn before_the_store_is_open_it_lives_and_is_not_ready() {
        let pages = Pages {
            health: Health::new(CancellationToken::new()),
            metrics: Metrics::new(StoreKind::Memory, None, &Access::anyone()),
        };
        for (path, status, text) in [
            ("/healthz", 200, "ok\n"),
            ("/readyz", 503, "the store is being opened\n"),
            ("/metrics", 503, "the store is being opened\n"),
        ] {
            let page = pages.answer(&Method::GET, path).await;
            assert_eq!((page.status().as_u16(), page.body().as_str()), (status, text), "{path}");
        }
        let refused = pages.answer(&Method::POST, "/healthz").await;
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()[ALLOW]),
            (405, &HeaderValue::from_static("GET, HEAD"))
        );
    }
}
