//! The netlink connection: what changes in this network namespace, and everything when asked.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::link::LinkExtentMask;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{AsyncSocket, SocketAddr};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::task::JoinHandle;

use super::network::Network;

/// Time after which a connection that failed is made again.
const RECONNECT: Duration = Duration::from_secs(1);

/// Room for messages while others run, as much as a burst of some hundred new interfaces takes.
const RECEIVE_BUFFER: libc::c_int = 4 << 20;

/// A netlink connection that has subscribed to what is of interest.
pub(super) struct Feed {
    handle: Handle,
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    connection: JoinHandle<()>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What comes out of the connection.
pub(super) enum News {
    Message(RouteNetlinkMessage),
    /// The kernel had to drop messages.
    Lost,
    /// The connection is gone.
    Closed,
}

impl Feed {
    pub(super) fn open() -> io::Result<Self> {
        let (mut connection, handle, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])?;
        if let Err(error) = connection.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER) {
            tracing::debug!(%error, "the netlink socket keeps its default buffer");
        }
        Ok(Self {
            handle,
            messages,
            connection: tokio::spawn(connection),
        })
    }

    /// Opens a new connection, however long that takes.
    pub(super) async fn reopen() -> Self {
        loop {
            tokio::time::sleep(RECONNECT).await;
            match Self::open() {
                Ok(feed) => return feed,
                Err(error) => tracing::warn!(%error, "cannot connect to netlink; trying again"),
            }
        }
    }

    pub(super) async fn next(&mut self) -> News {
        match self.messages.next().await {
            Some((message, _)) => news(message),
            None => News::Closed,
        }
    }

    /// The next message, if one is there already.
    pub(super) fn ready(&mut self) -> Option<News> {
        self.messages.try_recv().ok().map(|(message, _)| news(message))
    }

    /// Reads everything.
    pub(super) async fn look(&self) -> Result<Network, rtnetlink::Error> {
        let mut network = Network::default();
        let mask = vec![LinkExtentMask::SkipStats];
        let mut links = self
            .handle
            .link()
            .get()
            .set_filter_mask(AddressFamily::Unspec, mask)
            .execute();
        while let Some(link) = links.try_next().await? {
            network.observe(&RouteNetlinkMessage::NewLink(link));
        }
        let mut addresses = self.handle.address().get().execute();
        while let Some(address) = addresses.try_next().await? {
            network.observe(&RouteNetlinkMessage::NewAddress(address));
        }
        self.look_at_routes(&mut network).await?;
        Ok(network)
    }

    pub(super) async fn look_at_routes(&self, network: &mut Network) -> Result<(), rtnetlink::Error> {
        network.forget_routes();
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for family in [v4, v6] {
            let mut routes = self.handle.route().get(family).execute();
            while let Some(route) = routes.try_next().await? {
                network.add_route(&route);
            }
        }
        Ok(())
    }
}

fn news(message: NetlinkMessage<RouteNetlinkMessage>) -> News {
    match message.payload {
        NetlinkPayload::InnerMessage(message) => News::Message(message),
        _ => News::Lost,
    }
}
