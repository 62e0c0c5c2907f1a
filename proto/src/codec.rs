//! How messages become bytes and come back: protobuf as prost writes and reads
//! it, but read from memory in one piece. tonic's own codec reads from a buffer
//! that grows at its other end, which costs sessions, whose messages consist
//! of many small ones, a third more instructions.

use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// Writes `T`, reads `U`; see the module.
pub(crate) struct Codec<T, U>(PhantomData<(T, U)>);

/// The reading half of a [`Codec`].
pub(crate) struct Reader<U>(PhantomData<U>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<U> Default for Reader<U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Reader<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Reader::default()
    }
}

impl<U: Message + Default> Decoder for Reader<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // Taken out of the growing buffer, without a copy.
        let message = message.copy_to_bytes(message.remaining());
        U::decode(message)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::stream::{self, StreamExt};
    use tonic::Streaming;
    use tonic::codec::EncodeBody;

    use super::*;
    use crate::v1::Payload;

    #[test]
    fn what_is_written_is_read() {
        let sizes = [0, 1, 100, 70_000, 3, 300_000, 5];
        let messages = sizes.map(|size| Payload {
            content_type: "text/plain".to_owned(),
            data: vec![size as u8; size].into(),
        });
        let source = stream::iter(messages.clone().map(Ok));
        let body = EncodeBody::new_client(ProstEncoder::default(), source, None, None);
        let read = Streaming::new_request(Reader::<Payload>::default(), body, None, None);
        let read = read.map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!(read.now_or_never().unwrap(), messages);
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        // Two bytes that promise 127 more.
        let body = "\0\0\0\0\x02\x12\x7f".to_owned();
        let mut read = Streaming::new_request(Reader::<Payload>::default(), body, None, None);
        let error = read.next().now_or_never().unwrap().unwrap().unwrap_err();
        assert_eq!(error.code(), tonic::Code::Internal);
    }
}
