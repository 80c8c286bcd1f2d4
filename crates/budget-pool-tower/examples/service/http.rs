//! The little that both servers and their clients need of HTTP.

use std::io;
use std::net::SocketAddr;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use axum::{BoxError, Router};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;

/// The longest response that is read.
const MOST_BYTES: usize = 1 << 20;

pub type Client = legacy::Client<HttpConnector, Body>;

pub fn client() -> Client {
    legacy::Client::builder(TokioExecutor::new()).build_http()
}

/// Posts, and reads the whole response. Drop the future to break off: the connection is closed, so
/// that the other side can tell.
pub async fn post(
    client: &Client,
    url: &str,
    headers: impl IntoIterator<Item = (&str, &str)>,
    body: impl Into<Body>,
) -> Result<Response<Bytes>, BoxError> {
    let mut request = Request::post(url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let (head, body) = client.request(request.body(body.into())?).await?.into_parts();
    let body = axum::body::to_bytes(Body::new(body), MOST_BYTES).await?;
    Ok(Response::from_parts(head, body))
}

/// Serves on a free port of the loopback interface for as long as the runtime lives.
pub async fn serve(router: Router) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}
