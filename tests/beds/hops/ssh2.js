// An SSH server by npm's ssh2: one key logs in, and direct-tcpip channels are passed on.
//
//     node ssh2.js HOSTKEY AUTHORIZED_KEYS
//
// It prints its port, and ends with its stdin.
'use strict';

const fs = require('fs');
const net = require('net');
const { Server, utils } = require('ssh2');

const [hostKey, authorizedKeys] = process.argv.slice(2);
const known = utils.parseKey(fs.readFileSync(authorizedKeys)).getPublicSSH();

function authenticate(context) {
  if (context.method !== 'publickey' || !context.key.data.equals(known)) return context.reject(['publickey']);
  if (!context.signature) return context.accept();
  const key = utils.parseKey(fs.readFileSync(authorizedKeys));
  const good = key.verify(context.blob, context.signature, context.hashAlgo);
  return good === true ? context.accept() : context.reject(['publickey']);
}

function forward(accept, reject, info) {
  const target = net.connect({ host: info.destIP, port: info.destPort, allowHalfOpen: true });
  target.once('connect', () => {
    const channel = accept();
    target.on('error', () => channel.destroy());
    channel.on('error', () => target.destroy());
    channel.on('close', () => target.destroy());
    channel.pipe(target);
    target.pipe(channel);
  });
  target.once('error', () => reject());
}

const server = new Server({ hostKeys: [fs.readFileSync(hostKey)] }, (client) => {
  client.on('authentication', authenticate);
  client.on('ready', () => client.on('tcpip', forward));
  client.on('error', () => {});
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit(0)).resume();
