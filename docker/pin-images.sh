#!/bin/sh
# docker/pin-images.sh           write the digest that each image's tag has now into the files below
# docker/pin-images.sh --check   fail and name the images that are not pinned by digest
#
# A tag can be moved to other bytes; a digest cannot. Looking one up needs Docker and the registry.
set -eu

cd "$(dirname "$0")"
files="compose.yaml Dockerfile mlflow.Dockerfile"

# Images that a registry serves: not those that this repository builds, nor stages of a build.
# shellcheck disable=SC2086
images="$(sed -nE \
    -e 's/^ *image: ([^ ]+)$/\1/p' -e 's/^FROM ([^ ]+)( AS .*)?$/\1/p' $files |
    grep -vE '^assay:' | grep ':' | sort -u)"

if [ "${1:-}" = "--check" ]; then
    loose="$(printf '%s\n' "$images" | grep -v '@sha256:' || true)"
    [ -z "$loose" ] && exit 0
    printf 'Not pinned by digest; run docker/pin-images.sh:\n%s\n' "$loose" >&2
    exit 1
fi

for image in $images; do
    tag="${image%@*}"
    digest="$(docker buildx imagetools inspect "$tag" --format '{{.Manifest.Digest}}')"
    case "$digest" in
    sha256:????????????????????????????????????????????????????????????????) ;;
    *)
        echo "$tag: the registry gave no digest but '$digest'" >&2
        exit 1
        ;;
    esac
    for file in $files; do
        sed -E "s#(image: |FROM )$image( |\$)#\1$tag@$digest\2#" "$file" >"$file.pinned"
        cat "$file.pinned" >"$file"
        rm "$file.pinned"
    done
    echo "$tag@$digest"
done
