# syntax=docker/dockerfile:1

# solewriter and its example worker, bank, in one small image. A team's own worker is built the
# same way: its binary has the same verbs (run, migrate, check, healthcheck, ...).

FROM rust:1.95-slim-bookworm AS build

# A C compiler and make for librdkafka and jemalloc, headers of OpenSSL and zlib to link to.
# Versions are Debian's: pinning them breaks the build as soon as Debian mends one.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential pkg-config libssl-dev zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY . .

# Function names stay for backtraces, line tables go: they are four fifths of the file.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo

# The caches outlive the layer and the binaries do not, so these are copied out of them at once.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked --bin solewriter --example bank \
    && install -D -t /out target/release/solewriter target/release/examples/bank

FROM debian:bookworm-slim

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/*

COPY --from=build /out/ /usr/local/bin/

# A number, so that Kubernetes can see that it is not root. Nothing is written to the disk.
USER 65532:65532
WORKDIR /

# The metrics and probes answer on 127.0.0.1 until http.listen says otherwise.
EXPOSE 9400

# A graceful stop: finishes what is in flight, at most worker.drain_timeout (20s by default).
STOPSIGNAL SIGTERM

# Alive, not ready: a worker that waits for its database must not be restarted for it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["solewriter", "healthcheck"]

ENTRYPOINT ["solewriter"]
CMD ["--help"]
