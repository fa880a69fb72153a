# The program and what it needs, nothing else: no shell, no package manager, no root.
#
#   docker build -t tailkeep:0.1.0 .
#   docker run --rm --read-only --tmpfs /var/lib/tailkeep:uid=65532 -p 4317:4317 -p 4318:4318 \
#     -v "$PWD/tailkeep.yaml:/etc/tailkeep/tailkeep.yaml:ro" tailkeep:0.1.0
#
# In a container `receive` must listen on 0.0.0.0: 127.0.0.1 is the container's own.
FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --profile dist --locked --bin tailkeep
RUN config/image.sh target/dist/tailkeep /image

FROM scratch
COPY --from=build /image /
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
# Without a sink of its own choice the store goes here; everything else of the file system may be read-only.
ENV HOME=/var/lib/tailkeep
# OTLP/gRPC, OTLP/HTTP, health.
EXPOSE 4317 4318 13133
ENTRYPOINT ["/usr/bin/tailkeep"]
CMD ["run", "--config", "/etc/tailkeep/tailkeep.yaml"]
