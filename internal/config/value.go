package config

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Value is one field of a [Config] as text: a flag, a variable, a line of a
// file. It implements pflag.Value.
type Value struct {
	field   reflect.Value
	changed bool // a second flag of a list adds to the first
}

// Values returns the fields of c in the order of [Keys].
func (c *Config) Values() []*Value {
	v := reflect.ValueOf(c).Elem()
	out := make([]*Value, v.NumField())
	for i := range out {
		out[i] = &Value{field: v.Field(i)}
	}
	return out
}

// Help is what --help says of each key, in the order of [Keys].
func Help() []string {
	t := reflect.TypeFor[Config]()
	out := make([]string, t.NumField())
	for i := range out {
		out[i] = t.Field(i).Tag.Get("help")
	}
	return out
}

var durationType = reflect.TypeFor[time.Duration]()

// Type names the form of the value, as --help shows it.
func (v *Value) Type() string {
	switch k := v.field.Kind(); {
	case v.field.Type() == durationType:
		return "duration"
	case k == reflect.Int64:
		return "bytes"
	case k == reflect.Slice:
		return "strings"
	case k == reflect.Float64:
		return "number"
	default:
		return k.String()
	}
}

// IsBoolFlag lets a flag stand without a value.
func (v *Value) IsBoolFlag() bool { return v.field.Kind() == reflect.Bool }

// String is the value as text that Set reads.
func (v *Value) String() string {
	if !v.field.IsValid() {
		return ""
	}
	switch x := v.field.Interface().(type) {
	case time.Duration:
		return FormatDuration(x)
	case int64:
		return formatBytes(x)
	case []string:
		return strings.Join(x, ",")
	case float64:
		return strconv.FormatFloat(x, 'g', -1, 64)
	case int:
		return strconv.Itoa(x)
	default:
		return fmt.Sprint(x)
	}
}

// Set parses s into the field. Lists are divided by commas.
func (v *Value) Set(s string) error {
	switch f := v.field; f.Kind() {
	case reflect.String:
		f.SetString(s)
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		f.SetBool(b)
	case reflect.Int:
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return fmt.Errorf("%q is not a number from 0 on", s)
		}
		f.SetInt(int64(n))
	case reflect.Int64:
		n, err := parse64(f.Type(), s)
		if err != nil {
			return err
		}
		f.SetInt(n)
	case reflect.Float64:
		x, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(x) {
			return fmt.Errorf("%q is not a number", s)
		}
		f.SetFloat(x)
	case reflect.Slice:
		list := []string{}
		for part := range strings.SplitSeq(s, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = append(list, part)
			}
		}
		v.SetList(list)
	}
	return nil
}

// SetList sets the value of a list; a second call adds to the first.
func (v *Value) SetList(list []string) {
	if v.changed {
		list = append(v.field.Interface().([]string), list...)
	}
	v.changed = true
	v.field.Set(reflect.ValueOf(list))
}

func (v *Value) isList() bool { return v.field.Kind() == reflect.Slice }

func parse64(t reflect.Type, s string) (int64, error) {
	if t == durationType {
		d, err := ParseDuration(s)
		return int64(d), err
	}
	return ParseBytes(s)
}

// ParseDuration reads what time.ParseDuration does, and whole days before it:
// 14d, 1d12h. Negative ones are refused.
func ParseDuration(s string) (time.Duration, error) {
	wrong := fmt.Errorf("%q is not a duration such as 10m, 24h or 14d", s)
	var days time.Duration
	rest := s
	if n, after, ok := strings.Cut(s, "d"); ok {
		count, err := strconv.ParseUint(n, 10, 16)
		if err != nil {
			return 0, wrong
		}
		days, rest = time.Duration(count)*24*time.Hour, after
		if rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || days+d < 0 {
		return 0, wrong
	}
	return days + d, nil
}

// FormatDuration writes what [ParseDuration] reads: 14d, 24h, 1h30m.
func FormatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var byteUnits = []struct {
	name string
	size int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// ParseBytes reads a number of bytes, or of KiB, MiB, GiB or TiB.
func ParseBytes(s string) (int64, error) {
	digits, size := s, int64(1)
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			digits, size = strings.TrimSpace(rest), u.size
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/size {
		return 0, fmt.Errorf("%q is not a number of bytes such as 1048576, 512KiB or 50MiB", s)
	}
	return n * size, nil
}

func formatBytes(n int64) string {
	for _, u := range byteUnits {
		if n > 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}
