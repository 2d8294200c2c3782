# syntax=docker/dockerfile:1
# For people with a container engine: docker build -t tokenward .
# Without one, `make image` writes an equivalent image as a tar.
ARG RUST_VERSION=1.95.0

FROM rust:${RUST_VERSION}-slim-bookworm AS build
WORKDIR /src
# What builds jemalloc. Its pages are at least the kernel's: 64 KiB on some arm64.
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
ARG TARGETARCH
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY src src
# Cargo wants to see the declared bench and test targets; they are not built.
COPY benches benches
COPY tests tests
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    if [ "$TARGETARCH" = arm64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi \
    && cargo build --release --locked --bin tokenward \
    && cp target/release/tokenward /tokenward

# glibc, libgcc and the certificate authorities; no shell.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tokenward" \
      org.opencontainers.image.description="A Kubernetes operator that closes the feedback loop of API tokens: issue, rotate, observe, retire" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="https://github.com/tokenward/tokenward" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /tokenward /usr/bin/tokenward
USER 65532:65532
ENTRYPOINT ["/usr/bin/tokenward"]
