// A daemon for the kernel's on-demand cachefiles mode in Go, without the C library.
//
// client DEVICE|fd:N DIRECTORY SOURCES [bind|restore] [STOP_AT]
//
// As client.c: serves the object of cookie key K from SOURCES/K, and prints the same lines.  The
// runtime's own poller waits for the device, and each READ has a goroutine.
package main

import (
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const (
	opOpen, opClose, opRead = 0, 1, 2
	maxMessage              = 1024
	readComplete            = 0x40049801 // CACHEFILES_IOC_READ_COMPLETE
)

type slot struct {
	anon   int
	source *os.File
}

var (
	mutex     sync.Mutex
	slots     = map[uint32]slot{}
	readsLeft = -1
)

func check(what string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}

func say(device int, format string, arguments ...any) {
	text := fmt.Sprintf(format, arguments...)
	_, err := syscall.Write(device, []byte(text))
	check(text, err)
}

func onOpen(device int, id, object uint32, body []byte, sources string) {
	volumeSize := binary.LittleEndian.Uint32(body)
	cookieSize := binary.LittleEndian.Uint32(body[4:])
	anon := int(binary.LittleEndian.Uint32(body[8:]))
	volume := string(body[16 : 16+volumeSize-1])
	cookie := string(body[16+volumeSize : 16+volumeSize+cookieSize])
	source, err := os.Open(sources + "/" + cookie)
	if err != nil {
		say(device, "copen %d,-2", id)
		syscall.Close(anon)
		return
	}
	info, err := source.Stat()
	check(cookie, err)
	mutex.Lock()
	slots[object] = slot{anon, source}
	mutex.Unlock()
	fmt.Printf("open %s %s\n", volume, cookie)
	say(device, "copen %d,%d", id, info.Size())
}

func serve(id uint32, it slot, offset int64, length uint64) {
	buffer := make([]byte, length)
	_, err := it.source.ReadAt(buffer, offset)
	check("read of the source", err)
	_, err = syscall.Pwrite(it.anon, buffer, offset)
	check("pwrite", err)
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(it.anon), readComplete, uintptr(id))
	if errno != 0 {
		log.Fatalf("READ_COMPLETE: %v", errno)
	}
}

func onRead(id, object uint32, body []byte) {
	offset, length := int64(binary.LittleEndian.Uint64(body)), binary.LittleEndian.Uint64(body[8:])
	fmt.Printf("id %d of %d\n", id, object)
	fmt.Printf("read %d %d\n", offset, length)
	if readsLeft > 0 {
		if readsLeft--; readsLeft == 0 {
			fmt.Println("stopped")
			for {
				syscall.Pause()
			}
		}
	}
	mutex.Lock()
	it, found := slots[object]
	mutex.Unlock()
	if !found {
		log.Fatalf("a READ of object %d, which is not open", object)
	}
	go serve(id, it, offset, length)
}

func onClose(object uint32) {
	mutex.Lock()
	defer mutex.Unlock()
	if it, found := slots[object]; found {
		syscall.Close(it.anon)
		it.source.Close()
		delete(slots, object)
		fmt.Println("close")
	}
}

func openDevice(name string) *os.File {
	if strings.HasPrefix(name, "fd:") {
		fd, err := strconv.Atoi(strings.TrimPrefix(name, "fd:"))
		check(name, err)
		check(name, syscall.SetNonblock(fd, true)) // Else the runtime does not poll it.
		return os.NewFile(uintptr(fd), name)
	}
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	check(name, err)
	return file
}

// Reads what there is; false waits for the next edge.
func drain(fd int, sources string) bool {
	for {
		buffer := make([]byte, maxMessage)
		size, err := syscall.Read(fd, buffer)
		if err == syscall.EINTR {
			continue
		}
		check("read", err)
		if size == 0 {
			return false
		}
		id, opcode := binary.LittleEndian.Uint32(buffer), binary.LittleEndian.Uint32(buffer[4:])
		length, object := binary.LittleEndian.Uint32(buffer[8:]), binary.LittleEndian.Uint32(buffer[12:])
		if int(length) != size {
			log.Fatalf("a message of %d bytes says %d", size, length)
		}
		switch opcode {
		case opOpen:
			onOpen(fd, id, object, buffer[16:], sources)
		case opRead:
			onRead(id, object, buffer[16:])
		case opClose:
			onClose(object)
		}
	}
}

func main() {
	if len(os.Args) < 5 {
		os.Exit(2)
	}
	device := openDevice(os.Args[1])
	if len(os.Args) > 5 {
		var err error
		readsLeft, err = strconv.Atoi(os.Args[5])
		check("STOP_AT", err)
	}
	connection, err := device.SyscallConn()
	check("poller", err)
	check("commands", connection.Control(func(fd uintptr) {
		if os.Args[4] == "restore" {
			say(int(fd), "restore")
			return
		}
		say(int(fd), "dir %s", os.Args[2])
		say(int(fd), "tag test")
		say(int(fd), "bind ondemand")
	}))
	fmt.Println("ready")
	check("poll", connection.Read(func(fd uintptr) bool { return drain(int(fd), os.Args[3]) }))
}
