# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
RUN rustup target add wasm32-wasip2
WORKDIR /src
COPY . .
# Each plugin by itself: built together they would share what only one of them wants of the SDK.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package notify-host --package order-cli \
    && install -D --strip --target-directory=/out/bin target/release/notify-host target/release/order-cli \
    && for plugin in chat email logger webhook; do \
    cargo build --profile guest --locked --target wasm32-wasip2 --package "$plugin" \
    && install -D --mode=644 "target/wasm32-wasip2/guest/$plugin.wasm" "/out/plugins/$plugin.wasm" \
    || exit 1; \
    done \
    && for toml in plugins/*/starter.toml; do \
    install -D --mode=644 "$toml" "/out/plugins/$(basename "$(dirname "$toml")").toml" || exit 1; \
    done \
    && install -d --mode=700 /out/state

# The C library, certificates of authorities, and nothing to log in to: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/bin/ /usr/local/bin/
COPY --from=build /out/plugins/ /plugins/
COPY --from=build --chown=65532:65532 /out/state/ /var/lib/notify-host/
USER 65532:65532
ENV NOTIFY_PLUGINS=/plugins NOTIFY_STATE=/var/lib/notify-host
# Only if NOTIFY_ADMIN says so: by itself it listens inside of the container alone.
EXPOSE 9471
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["notify-host", "health"]
ENTRYPOINT ["notify-host"]
CMD ["run"]
