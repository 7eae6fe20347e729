# The body of a test as test-exec.sh sources it: first pyrelay is put in the path, then the suite's own script runs.
# PYRELAY_CARRIER: what makes a connection to the host and port that follow it; empty: as it is.
# PYRELAY_PORT: where whoever connects gets what ssh_proxy's ProxyCommand would have been, as in $OBJ/served.

if [ -n "$PYRELAY_CARRIER" ]; then
	sed -n 's/^proxycommand //p' "$OBJ/ssh_proxy" > "$OBJ/served"
	sed "s|^proxycommand .*|proxycommand $PYRELAY_CARRIER 127.0.0.1 $PYRELAY_PORT|" "$OBJ/ssh_proxy" > "$OBJ/ssh_proxy.relayed"
	mv "$OBJ/ssh_proxy.relayed" "$OBJ/ssh_proxy"
	echo "ProxyCommand $PYRELAY_CARRIER %h %p" >> "$OBJ/ssh_config"
fi
. "$PYRELAY_SCRIPT"
