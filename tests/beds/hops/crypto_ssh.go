// An SSH server by golang.org/x/crypto/ssh: one key logs in, and direct-tcpip channels are passed on.
//
//	crypto_ssh HOSTKEY AUTHORIZED_KEYS
//
// It prints its port, and ends with its stdin.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"

	"golang.org/x/crypto/ssh"
)

type place struct {
	Host       string
	Port       uint32
	OriginHost string
	OriginPort uint32
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// pass copies one direction, and passes its end on: a half-close.
func pass(to interface{ CloseWrite() error }, out io.Writer, from io.Reader, done chan<- struct{}) {
	io.Copy(out, from)
	to.CloseWrite()
	done <- struct{}{}
}

func forward(request ssh.NewChannel) {
	var to place
	if request.ChannelType() != "direct-tcpip" || ssh.Unmarshal(request.ExtraData(), &to) != nil {
		request.Reject(ssh.UnknownChannelType, "only direct-tcpip")
		return
	}
	target, err := net.Dial("tcp", net.JoinHostPort(to.Host, fmt.Sprint(to.Port)))
	if err != nil {
		request.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	channel, requests, err := request.Accept()
	if err != nil {
		target.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	done := make(chan struct{}, 2)
	go pass(channel, channel, target, done)
	go pass(target.(*net.TCPConn), target, channel, done)
	<-done
	<-done
	channel.Close()
	target.Close()
}

func serve(stream net.Conn, config *ssh.ServerConfig) {
	_, channels, requests, err := ssh.NewServerConn(stream, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for request := range channels {
		go forward(request)
	}
}

func main() {
	known, _, _, _, err := ssh.ParseAuthorizedKey(must(os.ReadFile(os.Args[2])))
	must(known, err)
	config := &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if bytes.Equal(key.Marshal(), known.Marshal()) {
				return nil, nil
			}
			return nil, errors.New("not this one")
		},
	}
	config.AddHostKey(must(ssh.ParsePrivateKey(must(os.ReadFile(os.Args[1])))))
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() {
		for {
			go serve(must(listener.Accept()), config)
		}
	}()
	io.Copy(io.Discard, os.Stdin)
}
