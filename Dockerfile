# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
RUN rustup target add wasm32-wasip2
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package notify-host --package order-cli \
    && cargo build --profile guest --locked --target wasm32-wasip2 --package logger \
    && install -D --target-directory=/out/bin target/release/notify-host target/release/order-cli \
    && install -D --mode=644 target/wasm32-wasip2/guest/logger.wasm /out/plugins/logger.wasm

FROM debian:bookworm-slim
# The roots for amqps://, as new as the base image has them.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home notify \
    && install -d --owner=10001 --mode=700 /var/lib/notify-host
COPY --from=build /out/bin/ /usr/local/bin/
COPY --from=build /out/plugins/ /plugins/
USER 10001
ENV NOTIFY_PLUGINS=/plugins NOTIFY_STATE=/var/lib/notify-host
STOPSIGNAL SIGTERM
ENTRYPOINT ["notify-host"]
CMD ["run"]
