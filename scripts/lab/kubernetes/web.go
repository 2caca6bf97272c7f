// The application of the laboratory's own tests: says which release and pod answers, and leaves as a good service does.
//
//	/       release and pod             /work   burns a processor for 50 ms, for the autoscaler
//	/ready  200, and 503 once leaving   /live   200
//
// On SIGTERM it turns unready, goes on answering for DRAIN_SECONDS, finishes what it began and exits with 0.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

func seconds(name string) time.Duration {
	value, _ := strconv.ParseFloat(os.Getenv(name), 64)
	return time.Duration(value * float64(time.Second))
}

func main() {
	var leaving atomic.Bool
	pod, _ := os.Hostname()
	ready := time.Now().Add(seconds("START_SECONDS"))

	http.HandleFunc("/", func(answer http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(answer, "release %s pod %s\n", os.Getenv("RELEASE"), pod)
	})
	http.HandleFunc("/live", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/ready", func(answer http.ResponseWriter, _ *http.Request) {
		if leaving.Load() || time.Now().Before(ready) {
			answer.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("/work", func(http.ResponseWriter, *http.Request) {
		for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
		}
	})

	// Who keeps a connection is told with the next answer to make a new one. (SetKeepAlivesEnabled would close the idle
	// ones at once, and a request that is on its way over one of them would be lost.)
	server := http.Server{Addr: ":8080", Handler: http.HandlerFunc(func(answer http.ResponseWriter, asked *http.Request) {
		if leaving.Load() {
			answer.Header().Set("Connection", "close")
		}
		http.DefaultServeMux.ServeHTTP(answer, asked)
	})}
	done := make(chan struct{})
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	go func() {
		fmt.Println("asked to leave:", <-asked)
		leaving.Store(true)
		time.Sleep(seconds("DRAIN_SECONDS"))
		_ = server.Shutdown(context.Background())
		fmt.Println("left with nothing unanswered")
		close(done)
	}()
	fmt.Println("release", os.Getenv("RELEASE"), "listens")
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		fmt.Println(err)
		os.Exit(1)
	}
	<-done
}
