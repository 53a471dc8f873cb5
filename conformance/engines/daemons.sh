# shellcheck shell=bash
# Sourced: onggi alone, and the daemons told to use it.
# With PEER=runc or crun in the environment the same with that runtime, which makes a failure comparable.
onggi=/usr/local/bin/onggi
peers=/var/lib/peers

# onggi_alone: puts the other runtimes where nobody finds them. With PEER that one is called onggi.
onggi_alone() {
	local path
	[ ! -d $peers ] || return 0
	mkdir $peers
	for path in /usr/bin/runc /usr/sbin/runc /usr/bin/crun; do
		# the first may be a link to the second
		[ ! -e $path ] && [ ! -L $path ] || mv $path $peers/ || exit 1
	done
	[ -z "${PEER:-}" ] || { mv $onggi $peers/onggi; cp "$peers/$PEER" $onggi; }
	hash -r
	for path in runc crun; do
		if command -v $path; then echo "$path is still there" >&2; exit 1; fi
	done
}

# docker_daemon JSON: dockerd with this configuration beside onggi as default, restarted
docker_daemon() {
	onggi_alone
	mkdir -p /etc/systemd/system/docker.service.d
	# docker build has its own setting for the runtime
	printf '[Unit]\nStartLimitIntervalSec=0\n[Service]\nEnvironment=DOCKER_BUILDKIT_RUNC_COMMAND=%s\nRestart=always\nRestartSec=1\n' $onggi > /etc/systemd/system/docker.service.d/onggi.conf
	jq -n --argjson more "$1" '{ "default-runtime": "onggi", "runtimes": { "onggi": { "path": "'$onggi'" } } } + $more' > /etc/docker/daemon.json
	systemctl daemon-reload
	systemctl restart docker || { journalctl -u docker -n 20 --no-pager; return 1; }
	eventually docker info >/dev/null
}

# podman_config: podman and buildah for everybody
podman_config() {
	cat > /etc/containers/containers.conf.d/onggi.conf <<-END
	[engine]
	runtime = "onggi"
	runtime_supports_json = ["onggi"]
	# podman reads this name, whatever its manual says
	runtime_supports_nocgroup = ["onggi"]
	[engine.runtimes]
	onggi = ["$onggi"]
	END
}

# containerd_cri: CRI's handler `onggi` as it is in the machine, asked again for its features, and a handler
# `onggi-options` with every option of the shim, whose calls are written down. A task that does not tell its state
# in 2 seconds is taken for dead by default, which one of a hundred on an emulated processor is not.
containerd_cri() {
	onggi_alone
	printf '#!/bin/sh\necho "$*" >> /var/tmp/seen-by-cri\nexec %s "$@"\n' $onggi > $onggi-options
	chmod 755 $onggi-options
	if ! grep -q onggi-options /etc/containerd/config.toml; then
		cat >> /etc/containerd/config.toml <<-END
		[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.onggi-options]
		runtime_type = "io.containerd.runc.v2"
		[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.onggi-options.options]
		BinaryName = "$onggi-options"
		Root = "/run/onggi-options"
		NoPivotRoot = true
		NoNewKeyring = true
		SystemdCgroup = false
		[timeouts]
		"io.containerd.timeout.task.state" = "120s"
		END
	fi
	# A node has more than 128, too: every container takes one to hear of want of memory.
	[ ! -d /run/systemd/system ] || sysctl -qw fs.inotify.max_user_instances=8192
	systemctl restart containerd
	eventually ctr version >/dev/null
}
